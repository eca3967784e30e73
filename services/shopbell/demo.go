package shopbell

import (
	"context"
	"fmt"
	"log/slog"
	"os"

	"shopbell.dev/pkg/run"
	"shopbell.dev/pkg/telemetry"
	"shopbell.dev/services/shopbell/demo"
)

type demoCmd struct{ flags }

// Run is the command.
func (c *demoCmd) Run() error {
	c.AllowPrivateAddresses = true // the demonstration's receiver listens on this machine
	s, err := c.settings()
	if err != nil {
		return err
	}
	// What happens is told by the demonstration; only what somebody should look at is logged beside it.
	log, flush := telemetry.Logger(os.Stderr, s.Common.LogFormat, max(s.Common.LogLevel, slog.LevelWarn))
	defer flush()
	slog.SetDefault(log) // what libraries log, as net/http does of receivers that talk unasked, is a line like any other
	return run.UntilSignal(func(ctx context.Context) error {
		show := make(chan error, 1)
		err := s.run(ctx, log, func(at run.Addresses) {
			show <- demo.Run(ctx, os.Stdout, demo.Place{
				REST: "http://" + at.HTTP, GRPC: at.GRPC, Data: s.Data.Folder, OperatorKey: string(s.Common.OperatorKey),
			})
		})
		select {
		case serr := <-show:
			if serr != nil && ctx.Err() == nil {
				fmt.Fprintf(os.Stderr, "the demonstration stopped: %v\n", serr)
			}
		default:
		}
		if err == nil {
			fmt.Println("\nStopped in order. Everything is kept in " + s.Data.Folder + " and goes on with the next start.")
		}
		return err
	})
}
