package e2e

import "syscall"

// diesWithUs has the kernel kill a program when the test that started it is killed.
func diesWithUs() *syscall.SysProcAttr { return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} }
