//go:build race

package e2e

// raceFlags have the rooms watched too when the tests are. A race ends a process with code 66, which no test takes.
var raceFlags = []string{"-race"}
