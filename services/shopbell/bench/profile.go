package main

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime/pprof"

	"shopbell.dev/services/shopbell"
)

// serveProfiled is the child that is `shopbell serve` with a profiler beside it: the same code in this program, so that
// the product needs no door for it. The first argument is where the profiles go, the others are the product's.
func serveProfiled(args []string) error {
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, profileOn, profileOff)
	done := make(chan error, 1)
	go func() { done <- profile(args[0], signals) }()
	os.Args = append([]string{"shopbell"}, args[1:]...)
	shopbell.Main()
	signal.Stop(signals)
	close(signals)
	return <-done
}

// profile writes, for each pair of signals, what the CPU does between the two, and at the second what was allocated since
// the start.
func profile(prefix string, signals <-chan os.Signal) error {
	for row := 1; ; row++ {
		if !await(signals, profileOn) {
			return nil
		}
		cpu, err := os.Create(fmt.Sprintf("%s-row-%d.pb.gz", prefix, row))
		if err != nil {
			return fmt.Errorf("profile: %w", err)
		}
		if err := pprof.StartCPUProfile(cpu); err != nil {
			return fmt.Errorf("profile: %w", err)
		}
		await(signals, profileOff)
		pprof.StopCPUProfile()
		allocs, err := os.Create(fmt.Sprintf("%s-row-%d-allocs.pb.gz", prefix, row))
		if err != nil {
			return fmt.Errorf("profile: %w", err)
		}
		if err := errors.Join(cpu.Close(), pprof.Lookup("allocs").WriteTo(allocs, 0), allocs.Close()); err != nil {
			return fmt.Errorf("profile: %w", err)
		}
	}
}

// await waits for one signal and lets others go by; false: there will be no more.
func await(signals <-chan os.Signal, want os.Signal) bool {
	for sig := range signals {
		if sig == want {
			return true
		}
	}
	return false
}
