package run

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"sync"
	"syscall"

	"github.com/KimMachineGun/automemlimit/memlimit"

	"shopbell.dev/pkg/bus"
	"shopbell.dev/pkg/config"
	"shopbell.dev/pkg/telemetry"
)

// Main is the whole main of a room that runs alone: it reads flags and settings, runs the room until it is told to stop
// (SIGINT, SIGTERM; a second one kills), and exits.
func Main[C any](name string, defaults C, newRoom func(C, *Env) (Service, error)) {
	if err := roomMain(name, defaults, newRoom); err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", name, err)
		os.Exit(1)
	}
}

func roomMain[C any](name string, cfg C, newRoom func(C, *Env) (Service, error)) error {
	file := flag.String("config", "", "path of a YAML file with settings")
	check := flag.Bool("check", false, "say whether the settings are good, and exit")
	show := flag.Bool("print-config", false, "print the settings in force, and exit")
	healthy := flag.Bool("healthcheck", false, "ask the room that runs here with these settings whether it is ready, and exit")
	version := flag.Bool("version", false, "print the version, and exit")
	flag.Parse()
	if flag.NArg() > 0 {
		return fmt.Errorf("%q is not understood; see -help", flag.Arg(0))
	}
	if *version {
		fmt.Println(Version)
		return nil
	}
	common, busConfig := CommonDefaults(), bus.Defaults()
	sections := []config.Section{{Into: &common}, {Name: "bus", Into: &busConfig}, {Name: name, Into: &cfg}}
	if err := config.Load(*file, os.Environ(), sections...); err != nil {
		return err
	}
	switch {
	case *show:
		return config.Write(os.Stdout, sections...)
	case *check:
		fmt.Println("the settings are good")
		return nil
	case *healthy:
		return Healthcheck(context.Background(), common.HTTP)
	}
	log, flush := telemetry.Logger(os.Stderr, common.LogFormat, common.LogLevel)
	defer flush()
	slog.SetDefault(log) // what libraries log, as net/http does of receivers that talk unasked, is a line like any other
	p := &Process{
		Name: name, Common: common, Bus: busConfig, Log: log,
		Rooms: []Room{{Name: name, New: func(env *Env) (Service, error) { return newRoom(cfg, env) }}},
	}
	return UntilSignal(p.Run)
}

// UntilSignal calls run with a context that ends at SIGINT or SIGTERM. A second signal kills the process.
func UntilSignal(run func(context.Context) error) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	collect, end := context.WithCancel(context.WithoutCancel(ctx)) // to the end of the stop, which allocates too
	var beside sync.WaitGroup
	defer func() { stop(); end(); beside.Wait() }()
	moreThreads()
	boundMemory(memlimit.FromCgroup, slog.Default())
	beside.Go(func() { calmCollector(collect) })
	beside.Go(func() {
		<-ctx.Done()
		stop()
	})
	return run(ctx)
}
