package demo

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"strings"
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
	hooks   map[string]*expected // by path
	stumble int                  // how many times the one that stumbles still fails
	once    sync.Once
}

type expected struct {
	hook
	profile, secret string
	seen            bool // that is, printed whole
}

func listen(ctx context.Context, out io.Writer) (*receiver, error) {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("open the demonstration's receiver: %w", err)
	}
	r := &receiver{
		base: "http://" + l.Addr().String(), out: out, hooks: map[string]*expected{}, stumble: 2, recovered: make(chan struct{}),
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
	maps.Copy(fields, h.Extra)
	e := &expected{hook: h}
	for _, s := range shops {
		if s.ID == h.Shop {
			e.profile, fields["profile"] = s.Profile, s.Profile
		}
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
	e.secret = s.Secret
	for _, other := range r.hooks {
		e.seen = e.seen || other.Shop == h.Shop // the first of its shop is shown
	}
	r.hooks[h.Path] = e
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
	code, remark := http.StatusOK, verified(req.Header, h.secret, body)
	if req.URL.Path == "/stumbles" {
		if r.stumble > 0 {
			r.stumble--
			code, remark = http.StatusServiceUnavailable, "it will be tried again"
		} else {
			r.once.Do(func() { close(r.recovered) })
		}
	}
	if h.seen {
		if h.Extra["transform"] != nil {
			remark += ": " + string(body)
		}
		_, _ = fmt.Fprintf(r.out, "%s  %-12s → %-30s %d, %s\n", time.Now().Format("15:04:05.000"), h.Shop, h.Label, code, remark)
	} else {
		h.seen = true
		printRequest(r.out, fmt.Sprintf("profile %s: %s → %s", h.profile, h.Shop, h.Label), req, body, fmt.Sprintf("%d, %s", code, remark))
	}
	w.WriteHeader(code)
}

// verified says whether a request's signatures are good.
func verified(h http.Header, secret string, body []byte) string {
	var good []string
	if signatures := h.Get(signature.HeaderSignature); signatures != "" {
		if err := signature.VerifyStandard(secret, h.Get(signature.HeaderID), h.Get(signature.HeaderTimestamp), signatures, body, time.Now(), 5*time.Minute); err != nil {
			return err.Error()
		}
		good = append(good, signature.HeaderSignature)
	}
	if text, ok := strings.CutPrefix(h.Get("X-Webhook-Signature"), "sha256="); ok {
		if err := signature.VerifyHex(secret, text, body); err != nil {
			return err.Error()
		}
		good = append(good, "X-Webhook-Signature")
	}
	if len(good) == 0 {
		return "not signed"
	}
	return strings.Join(good, " and ") + ": good"
}
