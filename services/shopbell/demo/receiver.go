package demo

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"time"

	"shopbell.dev/pkg/signature"
)

// receiver is what the demonstration's webhooks point at. It verifies every request and prints it.
type receiver struct {
	base      string
	server    *http.Server
	recovered chan struct{} // closed when the receiver that stumbles has taken its first delivery

	mu      sync.Mutex // guards what follows
	out     io.Writer
	hooks   map[string]expected // by path
	stumble int                 // how many times the one that stumbles still fails
	once    sync.Once
}

type expected struct{ shop, label, secret string }

func listen(ctx context.Context, out io.Writer) (*receiver, error) {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("open the demonstration's receiver: %w", err)
	}
	r := &receiver{
		base: "http://" + l.Addr().String(), out: out, hooks: map[string]expected{}, stumble: 2, recovered: make(chan struct{}),
	}
	r.server = &http.Server{Handler: r, ReadHeaderTimeout: 5 * time.Second}
	go func() { _ = r.server.Serve(l) }()
	return r, nil
}

func (r *receiver) close() { _ = r.server.Close() }

// expect registers a webhook, or finds the one that an earlier demonstration has left, and points it here.
func (r *receiver) expect(ctx context.Context, api *api, h hook) error {
	path := "/v1/shops/" + h.Shop + "/webhooks"
	var list struct{ Webhooks []struct{ ID, Label string } }
	if err := api.call(ctx, http.MethodGet, path+"?page_size=500", nil, &list); err != nil {
		return err
	}
	var w struct{ ID string }
	for _, known := range list.Webhooks {
		if known.Label == h.Label {
			w.ID = known.ID
		}
	}
	fields := map[string]any{"label": h.Label, "url": r.base + h.Path, "events": h.Events}
	for name, value := range h.Extra {
		fields[name] = value
	}
	body, err := json.Marshal(fields)
	if err != nil {
		return err
	}
	if w.ID == "" {
		err = api.call(ctx, http.MethodPost, path, body, &w)
	} else {
		err = api.call(ctx, http.MethodPatch, path+"/"+w.ID, body, &w)
	}
	if err != nil {
		return err
	}
	var s struct{ Secret string }
	if err := api.call(ctx, http.MethodGet, path+"/"+w.ID+"/secret", nil, &s); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.hooks[h.Path] = expected{h.Shop, h.Label, s.Secret}
	return nil
}

// ServeHTTP takes a delivery.
func (r *receiver) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	body, err := io.ReadAll(io.LimitReader(req.Body, 4<<20))
	if err != nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	h, ok := r.hooks[req.URL.Path]
	if !ok {
		http.NotFound(w, req)
		return
	}
	signed := "signature good"
	if err := signature.VerifyStandard(h.secret, req.Header.Get(signature.HeaderID), req.Header.Get(signature.HeaderTimestamp),
		req.Header.Get(signature.HeaderSignature), body, time.Now(), 5*time.Minute); err != nil {
		signed = err.Error()
	}
	code, remark := http.StatusOK, signed
	if req.URL.Path == "/stumbles" {
		if r.stumble > 0 {
			r.stumble--
			code, remark = http.StatusServiceUnavailable, "it will be tried again"
		} else {
			r.once.Do(func() { close(r.recovered) })
		}
	}
	var seen struct{ Type string }
	_ = json.Unmarshal(body, &seen) // what is not JSON is printed without its type
	_, _ = fmt.Fprintf(r.out, "%s  %-13s %-18s → %-32s %d, %s\n", time.Now().Format("15:04:05.000"), h.shop, seen.Type, h.label, code, remark)
	w.WriteHeader(code)
}
