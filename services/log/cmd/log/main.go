// Command log remembers what was sent, what came back, and why something was not sent.
package main

import (
	"shopbell.dev/pkg/run"
	eventlog "shopbell.dev/services/log"
)

func main() { run.Main("log", eventlog.Defaults(), eventlog.New) }
