package run

import (
	"os"
	"runtime"
)

// fewCores is up to how many cores there are more threads than cores.
const fewCores = 4

// moreThreads has twice as many threads run Go code as there are cores, where those are few. A thread of Go looks at the network
// only when it has nothing else to run, and runs what is ready in its turn: while a burst or a backlog keeps every thread
// busy, an event that comes alone is not even seen for up to ten milliseconds. With a thread more that waits for the network it is
// the kernel that shares out the cores, which it does every three milliseconds, and at once for who has slept. GOMAXPROCS says
// otherwise; and where the process may not use all cores nothing is changed, for it would have used up its time sooner and be stopped.
func moreThreads() {
	if cores := runtime.NumCPU(); os.Getenv("GOMAXPROCS") == "" && cores <= fewCores && runtime.GOMAXPROCS(0) == cores {
		runtime.GOMAXPROCS(2 * cores)
	}
}
