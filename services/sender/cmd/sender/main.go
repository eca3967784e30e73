// Command sender makes the attempts: it POSTs deliveries to their webhooks.
package main

import (
	"shopbell.dev/pkg/run"
	"shopbell.dev/services/sender"
)

func main() { run.Main("sender", sender.Defaults(), sender.New) }
