#!/bin/sh
# Installs lite. A placeholder until the real one is here.
set -eu
DEFAULT_BASE_URL=
echo "install.sh: base URL: ${INSTALL_LITE_BASE_URL:-$DEFAULT_BASE_URL}"
