#!/usr/bin/env bash
# Chromium and its driver from the distribution, where they are missing and can be had. Says what it does.
set -euo pipefail
if command -v chromium > /dev/null && command -v chromedriver > /dev/null; then
  exit 0
fi
if ! command -v apt-get > /dev/null || [ "$(id -u)" -ne 0 ]; then
  echo "Browser tests need chromium and chromedriver; install them with your system's packages." >&2
  exit 0
fi
echo "Installing chromium and chromium-driver for the browser tests" >&2
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
apt-get install -y -qq --no-install-recommends chromium chromium-driver fonts-dejavu-core > /dev/null
