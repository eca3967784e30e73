// Command gateway is the REST edge over the other services.
package main

import (
	"shopbell.dev/pkg/run"
	"shopbell.dev/services/gateway"
)

func main() { run.Main("gateway", gateway.Defaults(), gateway.New) }
