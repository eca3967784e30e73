// Package openapi holds the OpenAPI description of the REST interface, generated
// from the proto files.
package openapi

import _ "embed"

// Document is the description as JSON (OpenAPI 2.0). It is shared: do not change
// its bytes.
//
//go:embed shopbell.swagger.json
var Document []byte
