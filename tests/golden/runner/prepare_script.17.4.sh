#!/usr/bin/env bash

trap exit 1 TERM

if set -o | grep pipefail > /dev/null; then set -o pipefail; fi; set -o errexit
set +o noclobber
: | eval $'echo "Running on $(hostname) via login1..."\nrm "-f" "%B/group/proj.tmp/gitlab_runner_env"\nrm "-f" "%B/group/proj.tmp/masking.db"\n'
exit 0
