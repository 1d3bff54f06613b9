package status

import "syscall"

// errRefused is what a socket answers whose process is gone.
const errRefused = syscall.ECONNREFUSED
