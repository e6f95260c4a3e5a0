#!/bin/sh
# Records the output of an installer for common failures: retake.sh NAME COMMAND... > NAME.txt
# COMMAND precedes `-r requirements.txt`, for example
#   retake.sh uv-0.13.8 uv pip install --index-strategy unsafe-best-match --python /tmp/said-3.10/bin/python
#   retake.sh pip-23.0.1 /tmp/said-3.10/bin/python -I -m pip install
# It needs a new environment of Python 3.10 in /tmp/said-3.10, and in $OTHER_CA a certificate that signed nothing.
# pip from 24 on reads the system's certificates: pass --use-deprecated=legacy-certs.
# Host names and folders in the output are replaced by neutral ones.
set -u
name=$1; shift
unset PIP_FIND_LINKS
export NO_COLOR=1 UV_NO_PROGRESS=1 UV_PYTHON_DOWNLOADS=never PIP_NO_INPUT=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_PROGRESS_BAR=off GIT_TERMINAL_PROMPT=0
work=/tmp/said/demo; rm -rf /tmp/said; mkdir -p "$work"; cd "$work" || exit 1

cp "${OTHER_CA:-/dev/null}" /tmp/said/none.pem
mkdir broken needy
echo 'import sys; sys.exit("cannot find gcc")' > broken/setup.py
printf '[project]\nname = "needy"\nversion = "1.0"\ndependencies = ["nosuchpackage-xyz>=2"]\n' > needy/pyproject.toml

neutral() { sed -e 's#\(https\{0,1\}\)://[^/ ]*#\1://index.invalid#g' -e "s#$HOME#/home/somebody#g" -e 's/0x[0-9a-f]\{6,\}/0x0/g' | tail -n 60; }

echo "Taken from $name with Python 3.10. What varies: hashes, temporary names, the versions that exist."
record() { # case, requirements, variables...
	printf '%b\n' "$2" > requirements.txt; title=$1; shift 2
	echo "== $title =="
	sed 's/^/> /' requirements.txt
	env "$@" $command -r requirements.txt $more 2>&1 | neutral
}
command=$*; more=

record package 'six\nNosuchpackage_XYZ>=1'
record version 'six==99.0'
record minimum 'six>=99'
record needs './needy'
record contradiction 'six==1.16.0\nsix==1.15.0'
record indirect 'python-dateutil==2.9.0  # dates\nsix<1.5'
record python 'numpy==2.4.0'
record wheel 'tensorflow==2.5.0'
record windows 'pywin32==306'
record syntax 'six\nfoo bar == 1'
record include 'six\n-r more.txt'
record folder './localpkg'
record broken './broken'
record address 'six @ https://127.0.0.1:1/six-1.0-py3-none-any.whl'
record git 'git+https://127.0.0.1:1/x.git'
record nogit 'git+https://127.0.0.1:1/x.git' PATH=/nowhere
record proxy 'pluggy' HTTPS_PROXY=http://127.0.0.1:1 UV_NO_CACHE=1 PIP_NO_CACHE_DIR=1
record nohost 'pluggy' UV_NO_CACHE=1 PIP_NO_CACHE_DIR=1 UV_DEFAULT_INDEX=https://index.invalid/simple UV_INDEX_URL=https://index.invalid/simple PIP_INDEX_URL=https://index.invalid/simple
record certificate 'pluggy' UV_NO_CACHE=1 PIP_NO_CACHE_DIR=1 SSL_CERT_FILE=/tmp/said/none.pem PIP_CERT=/tmp/said/none.pem REQUESTS_CA_BUNDLE=/tmp/said/none.pem SSL_CERT_DIR=/tmp/said
more='gradio[oauth,mcp]==6.31.0 spaces'
record gradio 'gradio==5.49.1\nsix'
record hub 'huggingface_hub==0.20.0\nsix'
more='gradio[oauth,mcp]==6.999.0 spaces'
record sdk ''
