// Command thirdparty writes the .proto files that ours import (google/api,
// google/rpc, buf/validate, protoc-gen-openapiv2) into a folder.
//
// It exists so that those files are exactly the ones our Go dependencies were
// compiled from: they are printed from the descriptors inside the modules that
// go.mod pins, so nothing is copied by hand, nothing is fetched from a schema
// registry, and an upgrade is one change of go.mod and one run of this program.
package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"

	"github.com/jhump/protoreflect/v2/protoprint"
	"google.golang.org/protobuf/reflect/protoregistry"

	// Imported for their side effect: each registers its file descriptors.
	_ "buf.build/gen/go/bufbuild/protovalidate/protocolbuffers/go/buf/validate"
	_ "github.com/grpc-ecosystem/grpc-gateway/v2/protoc-gen-openapiv2/options"
	_ "google.golang.org/genproto/googleapis/api/annotations"
	_ "google.golang.org/genproto/googleapis/rpc/errdetails"
	_ "google.golang.org/genproto/googleapis/rpc/status"
)

// sources says which Go module each file is printed from, and that module's
// licence, which goes into the file's header. A file that is imported by one of
// these must be listed as well; google/protobuf comes with every compiler.
var sources = []source{
	{"buf.build/gen/go/bufbuild/protovalidate/protocolbuffers/go", "Apache-2.0", []string{
		"buf/validate/validate.proto",
	}},
	{"google.golang.org/genproto/googleapis/api", "Apache-2.0", []string{
		"google/api/annotations.proto",
		"google/api/field_behavior.proto",
		"google/api/http.proto",
	}},
	{"google.golang.org/genproto/googleapis/rpc", "Apache-2.0", []string{
		"google/rpc/error_details.proto",
		"google/rpc/status.proto",
	}},
	{"github.com/grpc-ecosystem/grpc-gateway/v2", "BSD-3-Clause", []string{
		"protoc-gen-openapiv2/options/annotations.proto",
		"protoc-gen-openapiv2/options/openapiv2.proto",
	}},
}

type source struct {
	module  string
	licence string
	files   []string
}

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: thirdparty DIR")
		os.Exit(2)
	}
	if err := writeAll(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, "thirdparty:", err)
		os.Exit(1)
	}
}

func writeAll(dir string) error {
	versions, err := versions()
	if err != nil {
		return err
	}
	for _, src := range sources {
		header := fmt.Sprintf("// Printed by deploy/tools/thirdparty from the descriptors in\n// %s %s (%s). Do not edit.\n\n",
			src.module, versions[src.module], src.licence)
		for _, file := range src.files {
			if err := write(dir, file, header); err != nil {
				return fmt.Errorf("write %s: %w", file, err)
			}
		}
	}
	return nil
}

// versions gives the version of each module this program was built from.
func versions() (map[string]string, error) {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return nil, errors.New("built without module information")
	}
	v := make(map[string]string, len(info.Deps))
	for _, dep := range info.Deps {
		v[dep.Path] = dep.Version
	}
	return v, nil
}

func write(dir, file, header string) error {
	desc, err := protoregistry.GlobalFiles.FindFileByPath(file)
	if err != nil {
		return fmt.Errorf("find descriptor: %w", err)
	}
	printer := protoprint.Printer{Indent: "  "}
	text, err := printer.PrintProtoToString(desc)
	if err != nil {
		return fmt.Errorf("print: %w", err)
	}
	path := filepath.Join(dir, filepath.FromSlash(file))
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, []byte(header+text), 0o644)
}
