// Command ingest takes events from publishers and puts them onto the bus.
package main

import (
	"shopbell.dev/pkg/run"
	"shopbell.dev/services/ingest"
)

func main() { run.Main("ingest", ingest.Defaults(), ingest.New) }
