package zz

import (
	_ "cel.dev/cel-go/cel"
	_ "github.com/alecthomas/kong"
	_ "github.com/cloudevents/sdk-go/v2/event"
	_ "github.com/compose-spec/compose-go/v2/cli"
	_ "github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	_ "github.com/jackc/pgx/v5/pgxpool"
	_ "github.com/pressly/goose/v3"
	_ "github.com/standard-webhooks/standard-webhooks/libraries/go"
	_ "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	_ "go.uber.org/goleak"
	_ "modernc.org/sqlite"

	_ "shopbell.dev/pkg/zz"
)
