// Command subscription keeps the webhooks and matches events to them.
package main

import (
	"shopbell.dev/pkg/run"
	"shopbell.dev/services/subscription"
)

func main() { run.Main("subscription", subscription.Defaults(), subscription.New) }
