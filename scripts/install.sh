#!/bin/sh
# Installs lite. A placeholder until the real one is here.
set -eu
default_base_url=
echo "install.sh: base URL: ${INSTALL_LITE_BASE_URL:-$default_base_url}"
