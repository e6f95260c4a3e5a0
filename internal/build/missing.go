package build

import (
	"fmt"
	"path"
	"strconv"
	"strings"

	"spacehost/internal/lazyregexp"
)

// headerPackages names the Debian package of a header or program that builds of Python packages often miss. The names are
// those of Debian 12, on which the Hub builds Spaces; a line of packages.txt installs them there.
var headerPackages = map[string]string{
	"portaudio.h": "portaudio19-dev", "sndfile.h": "libsndfile1-dev", "alsa/asoundlib.h": "libasound2-dev", "pulse/simple.h": "libpulse-dev",
	"libavformat/avformat.h": "libavformat-dev", "libavcodec/avcodec.h": "libavcodec-dev", "libavdevice/avdevice.h": "libavdevice-dev",
	"cairo.h": "libcairo2-dev", "pango/pango.h": "libpango1.0-dev", "girepository.h": "libgirepository1.0-dev", "gtk/gtk.h": "libgtk-3-dev",
	"GL/gl.h": "libgl1-mesa-dev", "GL/glu.h": "libglu1-mesa-dev", "EGL/egl.h": "libegl1-mesa-dev", "GL/osmesa.h": "libosmesa6-dev", "glm/glm.hpp": "libglm-dev",
	"Eigen/Core": "libeigen3-dev", "Eigen/Dense": "libeigen3-dev", "boost/version.hpp": "libboost-all-dev", "tbb/tbb.h": "libtbb-dev", "CGAL/basic.h": "libcgal-dev",
	"opencv2/opencv.hpp": "libopencv-dev", "jpeglib.h": "libjpeg-dev", "png.h": "libpng-dev", "tiffio.h": "libtiff-dev", "zlib.h": "zlib1g-dev",
	"libxml/xmlversion.h": "libxml2-dev", "libxslt/xsltconfig.h": "libxslt1-dev", "ffi.h": "libffi-dev", "openssl/ssl.h": "libssl-dev", "openssl/opensslv.h": "libssl-dev",
	"curl/curl.h": "libcurl4-openssl-dev", "libpq-fe.h": "libpq-dev", "mysql.h": "default-libmysqlclient-dev", "sqlite3.h": "libsqlite3-dev", "hdf5.h": "libhdf5-dev",
	"gmp.h": "libgmp-dev", "mpfr.h": "libmpfr-dev", "mecab.h": "libmecab-dev", "espeak-ng/speak_lib.h": "libespeak-ng-dev", "tesseract/baseapi.h": "libtesseract-dev",
	"leptonica/allheaders.h": "libleptonica-dev", "magic.h": "libmagic-dev", "lz4.h": "liblz4-dev", "zstd.h": "libzstd-dev", "bzlib.h": "libbz2-dev", "lzma.h": "liblzma-dev",
	"fftw3.h": "libfftw3-dev", "samplerate.h": "libsamplerate0-dev", "rubberband/RubberBandStretcher.h": "librubberband-dev", "X11/Xlib.h": "libx11-dev",
	"cblas.h": "libopenblas-dev", "lapacke.h": "liblapacke-dev", "yaml.h": "libyaml-dev", "poppler/cpp/poppler-document.h": "libpoppler-cpp-dev",
	"pg_config": "libpq-dev", "cmake": "cmake", "ninja": "ninja-build", "gfortran": "gfortran", "swig": "swig", "pkg-config": "pkg-config", "rustc": "rustc", "cargo": "cargo",
	"mecab-config": "libmecab-dev", "mysql_config": "default-libmysqlclient-dev", "llvm-config": "llvm-dev", "protoc": "protobuf-compiler", "nasm": "nasm",
}

var (
	missingHeader   = lazyregexp.New(`fatal error: ['"]?([\w./+-]+)['"]?(?:: No such file or directory| file not found)`)
	missingPrograms = []*lazyregexp.Regexp{
		lazyregexp.New(`Error: (pg_config) executable not found`),
		lazyregexp.New(`(?i)(cmake) must be installed to build`),
		lazyregexp.New(`(?:error: command|unable to execute) '([\w+-]+)'[^.]*?(?:failed: )?(?:No such file or directory)`),
		lazyregexp.New(`No such file or directory: '([\w+-]+)'`),
	}
	missingModule = lazyregexp.New(`ModuleNotFoundError: No module named '([\w]+)`)
)

// Missing is what the build of a package from its source lacks.
type Missing struct {
	Name    string // a header, a program or a module of Python
	Package string // the Debian package that contains it; "": unknown, or a module
	Module  bool
}

// missing returns what the output of a failed build names as missing.
func (f failure) missing() (m Missing, ok bool) {
	if found, ok := f.match(missingHeader); ok {
		name := found[1]
		known := headerPackages[name]
		if known == "" {
			known = headerPackages[path.Base(name)]
		}
		return Missing{Name: name, Package: known}, true
	}
	for _, pattern := range missingPrograms {
		if found, ok := f.match(pattern); ok && headerPackages[strings.ToLower(found[1])] != "" {
			return Missing{Name: found[1], Package: headerPackages[strings.ToLower(found[1])]}, true
		}
	}
	if found, ok := f.match(missingModule); ok {
		return Missing{Name: found[1], Module: true}, true
	}
	return Missing{}, false
}

// missingHint returns the next step for a package that cannot be built from its source; "" if the output names nothing.
func (f failure) missingHint() string {
	m, ok := f.missing()
	switch {
	case !ok:
		return ""
	case m.Package != "":
		return fmt.Sprintf("its build misses %s: add %s to packages.txt, and install it on this machine with apt", m.Name, m.Package)
	case m.Module:
		return fmt.Sprintf("its setup.py imports %s, which is not installed yet at this point: name the URL of a wheel in requirements.txt", m.Name)
	}
	return fmt.Sprintf("its build misses %s: add the Debian package with this file to packages.txt", m.Name)
}

// line returns the number of the line of requirement that problem quotes, from 1; 0: none.
func (f failure) line(problem string) (requirement string, line int) {
	number := 0
	for text := range strings.Lines(f.text) {
		number++
		for _, r := range parseRequirements(text) {
			if strings.Contains(problem, strconv.Quote(r.text)) || strings.Contains(problem, strconv.Quote(requirementName.FindString(r.text))) {
				return r.text, number
			}
		}
	}
	return "", 0
}
