// Package shopbell is the whole of Shopbell in one process, with an embedded bus and SQLite in one data folder, and the
// command line.
package shopbell

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/alecthomas/kong"
	"github.com/nats-io/nats.go"

	"shopbell.dev/pkg/bus"
	"shopbell.dev/pkg/config"
	"shopbell.dev/pkg/fault"
	"shopbell.dev/pkg/run"
	"shopbell.dev/pkg/telemetry"
	"shopbell.dev/services/gateway"
	"shopbell.dev/services/ingest"
	eventlog "shopbell.dev/services/log"
	"shopbell.dev/services/sender"
	"shopbell.dev/services/subscription"
)

// Main is the command line.
func Main() {
	var cli struct {
		Serve   serveCmd         `cmd:"" help:"Run everything in one process, with the bus and the log in one data folder."`
		Demo    demoCmd          `cmd:"" help:"The same, with a demonstration: shops, webhooks, a receiver, and events."`
		Version kong.VersionFlag `help:"Print the version."`
	}
	k := kong.Parse(&cli, kong.Name("shopbell"), kong.Vars{"version": run.Version},
		kong.Description("Webhooks for shop platforms: events in, signed deliveries out, and a log that says why."))
	if err := k.Run(); err != nil {
		fmt.Fprintf(os.Stderr, "shopbell: %v\n", err)
		os.Exit(1)
	}
}

// flags are what serve and demo can be told on the command line; they come over file and environment.
type flags struct {
	Config                string `help:"Path of a YAML file with settings." type:"path" placeholder:"FILE"`
	Data                  string `help:"The data folder. (default: ./data)" type:"path" placeholder:"DIR"`
	HTTP                  string `name:"http" help:"Address for REST, health and metrics. (default: 127.0.0.1:8080)" placeholder:"ADDR"`
	GRPC                  string `name:"grpc" help:"Address for gRPC. (default: 127.0.0.1:9090)" placeholder:"ADDR"`
	AllowPrivateAddresses bool   `help:"Let webhooks point into private networks and at this machine."`
}

type serveCmd struct {
	flags
	Check       bool `help:"Say whether the settings are good, and exit."`
	PrintConfig bool `help:"Print the settings in force, and exit."`
}

// Run is the command.
func (c *serveCmd) Run() error {
	s, err := c.settings()
	if err != nil {
		return err
	}
	switch {
	case c.PrintConfig:
		return config.Write(os.Stdout, s.sections()...)
	case c.Check:
		fmt.Println("the settings are good")
		return nil
	}
	log, flush := telemetry.Logger(os.Stderr, s.Common.LogFormat, s.Common.LogLevel)
	defer flush()
	slog.SetDefault(log) // what libraries log, as net/http does of receivers that talk unasked, is a line like any other
	return run.UntilSignal(func(ctx context.Context) error {
		return s.run(ctx, log, func(at run.Addresses) {
			log.InfoContext(ctx, "shopbell is ready", slog.String("rest", "http://"+at.HTTP), slog.String("grpc", at.GRPC), slog.String("data", s.Data.Folder))
		})
	})
}

// settings are all settings of the one process.
type settings struct {
	Common       run.Common
	Data         data
	Bus          bus.Config
	Ingest       ingest.Config
	Subscription subscription.Config
	Sender       sender.Config
	Log          eventlog.Config
	Gateway      gateway.Config
}

// data is where the one process keeps everything.
type data struct {
	// Folder is the data folder.
	Folder string `yaml:"data"`
	// Sync is how often the disk is made to write what the bus was given: what may be lost when the machine loses
	// power. 0s has every write wait for the disk.
	Sync time.Duration `yaml:"sync"`
}

// Validate says what is wrong with the settings.
func (d data) Validate() error {
	var bad fault.Collector
	if d.Folder == "" {
		bad.Add("data", "it is empty; name a folder")
	}
	if d.Sync < 0 || d.Sync > time.Minute {
		bad.Add("sync", "%s is not between 0s (every write waits for the disk) and 1m", d.Sync)
	}
	return bad.Err()
}

func (s *settings) sections() []config.Section {
	return []config.Section{
		{Into: &s.Common},
		{Into: &s.Data},
		{Name: "bus", Into: &s.Bus},
		{Name: "ingest", Into: &s.Ingest},
		{Name: "subscription", Into: &s.Subscription},
		{Name: "sender", Into: &s.Sender},
		{Name: "log", Into: &s.Log},
	}
}

const toldByData = config.Secret("sqlite:") // the log's store when nothing else is set: a file in the data folder

func (f *flags) settings() (*settings, error) {
	s := &settings{
		Common: run.CommonDefaults(), Data: data{"data", 100 * time.Millisecond}, Bus: bus.Defaults(), Ingest: ingest.Defaults(),
		Subscription: subscription.Defaults(), Sender: sender.Defaults(), Log: eventlog.Defaults(), Gateway: gateway.Defaults(),
	}
	s.Log.Store = toldByData
	environment := os.Environ()
	for name, value := range map[string]string{"DATA": f.Data, "HTTP": f.HTTP, "GRPC": f.GRPC} {
		if value != "" {
			environment = append(environment, "SHOPBELL_"+name+"="+value)
		}
	}
	if f.AllowPrivateAddresses {
		environment = append(environment, "SHOPBELL_ALLOW_PRIVATE_ADDRESSES=true")
	}
	if err := config.Load(f.Config, environment, s.sections()...); err != nil {
		return nil, err
	}
	if s.Log.Store == toldByData {
		s.Log.Store = config.Secret("sqlite:" + filepath.Join(s.Data.Folder, "log.db"))
	}
	return s, nil
}

// run opens the data folder, starts the bus and all rooms, and serves until ctx ends.
func (s *settings) run(ctx context.Context, log *slog.Logger, ready func(run.Addresses)) error {
	folder, err := openFolder(s.Data.Folder)
	if err != nil {
		return err
	}
	defer folder.close()
	server, err := bus.Embed(bus.EmbedConfig{Dir: filepath.Join(s.Data.Folder, "bus"), Sync: s.Data.Sync}, log)
	if err != nil {
		return err
	}
	defer server.Stop()
	p := &run.Process{
		Name: "serve", Common: s.Common, Bus: s.Bus, BusOptions: []nats.Option{server.Option()}, Log: log, Ready: ready,
		// From the end of the journey to its beginning: a room opens when those that it hands on to are open.
		Rooms: []run.Room{
			{Name: "log", New: func(env *run.Env) (run.Service, error) { return eventlog.New(s.Log, env) }},
			{Name: "sender", New: func(env *run.Env) (run.Service, error) { return sender.New(s.Sender, env) }},
			{Name: "subscription", New: func(env *run.Env) (run.Service, error) { return subscription.New(s.Subscription, env) }},
			{Name: "ingest", New: func(env *run.Env) (run.Service, error) { return ingest.New(s.Ingest, env) }},
			{Name: "gateway", New: func(env *run.Env) (run.Service, error) { return gateway.New(s.Gateway, env) }},
		},
	}
	return p.Run(ctx)
}
