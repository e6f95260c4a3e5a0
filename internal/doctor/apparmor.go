package doctor

import (
	"fmt"
	"path/filepath"
	"strings"
	"unicode"
)

// AppArmorProfile returns a profile of AppArmor 4 that gives a program the right to user namespaces and restricts nothing
// (the form of containers/bubblewrap#632). The kernel finds the profile by the path of the program, which must be
// absolute and without symbolic links. A path with characters that mean something in patterns is refused: the parser of
// AppArmor 3.0 reads `\?` in quotes as a pattern.
func AppArmorProfile(program string) (string, error) {
	if !filepath.IsAbs(program) || strings.ContainsFunc(program, isSpecial) {
		return "", fmt.Errorf("cannot write an AppArmor profile for %q: a path must be absolute, with letters, digits, spaces and /._+~- only; move the program", program)
	}
	return fmt.Sprintf(`# Gives spacehost the right to create user namespaces, in which it confines Spaces.
abi <abi/4.0>,
include <tunables/global>

profile spacehost "%s" flags=(unconfined) {
  userns,

  include if exists <local/spacehost>
}
`, program), nil
}

func isSpecial(r rune) bool {
	return !unicode.IsLetter(r) && !unicode.IsDigit(r) && !strings.ContainsRune(" /._+~-", r)
}
