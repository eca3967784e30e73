// Package openapi is the OpenAPI description of the REST interface: what is generated from the proto files, and the two
// calls that are written by hand.
package openapi

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"maps"
	"sync"
)

//go:embed shopbell.swagger.json
var generated []byte

//go:embed byhand.json
var byHand []byte

// Document gives the description as JSON (OpenAPI 2.0). Its bytes are shared and must not be changed. It fails only when the
// files that are compiled in are no JSON.
var Document = sync.OnceValues(func() ([]byte, error) {
	var whole, more map[string]any
	if err := json.Unmarshal(generated, &whole); err != nil {
		return nil, fmt.Errorf("read the generated description: %w", err)
	}
	if err := json.Unmarshal(byHand, &more); err != nil {
		return nil, fmt.Errorf("read the description written by hand: %w", err)
	}
	for _, part := range []string{"paths", "definitions"} {
		into, _ := whole[part].(map[string]any)
		from, _ := more[part].(map[string]any)
		if into == nil || from == nil {
			return nil, fmt.Errorf("the description has no %s", part)
		}
		maps.Copy(into, from)
	}
	return json.MarshalIndent(whole, "", "  ")
})
