package run

import (
	"fmt"
	"log/slog"
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/contrib/instrumentation/google.golang.org/grpc/otelgrpc"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"shopbell.dev/pkg/address"
	"shopbell.dev/pkg/bus"
	"shopbell.dev/pkg/key"
	"shopbell.dev/pkg/profile"
	"shopbell.dev/pkg/rpc"
	"shopbell.dev/pkg/shop"
)

// Env is what a room is given: everything it needs of the process around it. A room cannot tell from it whether it is
// alone in the process.
type Env struct {
	Log      *slog.Logger
	Bus      *bus.Bus
	Profiles *profile.Set
	Tracer   trace.Tracer
	Tracing  trace.TracerProvider
	Metrics  prometheus.Registerer
	// GRPC is where the room registers its service.
	GRPC grpc.ServiceRegistrar
	// HTTP is where the room mounts what it serves by hand. Everything below /v1/ needs a key; whether it opens the shop
	// is asked with rpc.Authorize.
	HTTP *http.ServeMux
	// Guard says which addresses webhooks may have.
	Guard *address.Guard
	// Keys are the shops' keys. The process follows them.
	Keys *key.Directory
	// Shop is what holds for shops that have set nothing.
	Shop shop.Defaults
	// Version is the program's.
	Version string
	// Stopping is closed when the process begins to stop: an answer that would never end by itself ends then.
	Stopping <-chan struct{}
	// Trouble has /readyz say what the room has trouble with while it goes on; an empty text is none any more. The process
	// stays ready: nobody is helped by sending its work elsewhere. Everybody may read it, so it tells no addresses.
	Trouble func(text string)
	// NotReady has /readyz say why the room is of no use yet; an empty text is that it is. The others go on: the process is not
	// ready only when that is so of all of its rooms. It tells no addresses either.
	NotReady func(text string)

	local  func() (*grpc.ClientConn, error)
	shared *directories // with the other rooms of the process
}

// Dial opens a connection to the room at this address; an empty address is a room of this process. The caller closes
// it.
func (e *Env) Dial(address string) (*grpc.ClientConn, error) {
	if address == "" {
		return e.local()
	}
	conn, err := grpc.NewClient(address, e.dialOptions()...)
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", address, err)
	}
	return conn, nil
}

func (e *Env) dialOptions() []grpc.DialOption {
	return []grpc.DialOption{
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithStatsHandler(otelgrpc.NewClientHandler(otelgrpc.WithTracerProvider(e.Tracing))),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(64<<20), grpc.MaxCallSendMsgSize(64<<20)),
	}
}

// Fail answers an HTTP request with an error.
func (e *Env) Fail(w http.ResponseWriter, r *http.Request, err error) {
	rpc.WriteError(w, r, e.Log, err)
}
