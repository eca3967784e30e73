package main

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"strconv"
	"syscall"
	"time"
)

// measureBare has a child POST as many bodies as the plan wants: what a delivery costs at least.
func measureBare(ctx context.Context, p plan, rc *receiver) (row, error) {
	out, err := child(ctx, "bare", rc.url, strconv.Itoa(p.posts), strconv.Itoa(p.concurrency)).Output()
	if err != nil {
		return row{}, err
	}
	r := row{kind: bare, deliveries: p.posts}
	var times struct{ Took, CPU time.Duration }
	if err := json.Unmarshal(out, &times); err != nil {
		return r, err
	}
	r.took, r.cpu = times.Took, times.CPU
	return r, rc.await(ctx, "bare", &r)
}

// postBare is the child that POSTs: the same body, the same headers, and a client like the sender's, with nothing
// around. Its arguments are the receiver, how many, and how many at once; it prints the time and the CPU time it took.
func postBare(args []string) error {
	posts, _ := strconv.Atoi(args[1])
	concurrency, _ := strconv.Atoi(args[2])
	all := func(load string, posts int) error {
		return inParallel(context.Background(), posts, concurrency, func(ctx context.Context, i int) error {
			return post(ctx, args[0]+"/"+load+"/0", i)
		})
	}
	if err := all("bare-warm-up", posts/10); err != nil {
		return err
	}
	began, cpu := time.Now(), ownCPU()
	if err := all("bare", posts); err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(map[string]time.Duration{"Took": time.Since(began), "CPU": ownCPU() - cpu})
}

// post makes one POST, signed by Standard Webhooks. It is written here and not taken from the product, so that the
// yardstick stays the same when the product changes.
func post(ctx context.Context, url string, number int) error {
	now := time.Now()
	body := bodyText(number, now)
	id := fmt.Sprintf("dlv_%026d", number)
	stamp := strconv.FormatInt(now.Unix(), 10)
	mac := hmac.New(sha256.New, []byte("a key of thirty-two bytes, no mo"))
	_, _ = mac.Write([]byte(id + "." + stamp + "." + body)) // never fails (hash.Hash)
	_, err := do(ctx, http.MethodPost, url, http.Header{
		"User-Agent":        {"Shopbell/bench"},
		"Content-Type":      {"application/json"},
		"traceparent":       {"00-ccb605bcfe54e2ecada8db7414d52133-a96b57112b378257-00"},
		"webhook-id":        {id},
		"webhook-timestamp": {stamp},
		"webhook-signature": {"v1," + base64.StdEncoding.EncodeToString(mac.Sum(nil))},
	}, body, http.StatusOK)
	return err
}

// ownCPU is the CPU time of this process so far.
func ownCPU() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u) // fails for bad arguments only
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
