#!/bin/sh
# rustdoc with its JSON, which is unstable. For this one program, and not for the cargo that runs it: that would build all
# dependencies anew.
RUSTC_BOOTSTRAP=1 exec rustdoc "$@"
