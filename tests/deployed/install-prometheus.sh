#!/usr/bin/env bash
# Prometheus and promtool from the distribution, where they are missing and can be had. Says what it does.
set -euo pipefail
if command -v prometheus > /dev/null && command -v promtool > /dev/null; then
  exit 0
fi
if ! command -v apt-get > /dev/null || [ "$(id -u)" -ne 0 ]; then
  echo "Monitoring tests need prometheus and promtool; install them with your system's packages." >&2
  exit 0
fi
echo "Installing prometheus for the monitoring tests" >&2
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
apt-get install -y -qq --no-install-recommends prometheus > /dev/null
