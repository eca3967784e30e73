package sender

import (
	"bytes"
	"net"
	"net/http"
	"syscall"
	"testing"
	"time"

	"shopbell.dev/pkg/address"
)

// BenchmarkDo is what an exchange costs with a receiver that costs next to nothing: it allocates nothing for a request.
func BenchmarkDo(b *testing.B) {
	target := "http://" + answersAtOnce(b) + "/hooks"
	c := clientWith(b, address.NewGuard(address.Private...), Config{}, nil)
	body := bytes.Repeat([]byte("x"), 1<<10)
	b.ReportAllocs()
	began := cpu()
	for b.Loop() {
		h := http.Header{
			"User-Agent": {"Shopbell/bench"}, "Content-Type": {"application/json"}, "webhook-id": {"dlv_1"}, "webhook-timestamp": {"1"},
			"webhook-signature": {"v1,abc"}, "traceparent": {"00-ccb605bcfe54e2ecada8db7414d52133-a96b57112b378257-00"},
		}
		if x := do(b.Context(), c, target, h, body, 15*time.Second, 64<<10); x.code != 200 {
			b.Fatal(x.class, x.problem)
		}
	}
	b.ReportMetric((cpu()-began).Seconds()*1000/float64(b.N), "cpu-s/1000")
}

// answersAtOnce is a receiver that knows only where a request of the benchmark ends.
func answersAtOnce(b *testing.B) string {
	b.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = l.Close() })
	answer := []byte("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Type: text/plain\r\nDate: Fri, 20 Nov 2026 12:00:00 GMT\r\n\r\nok")
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer func() { _ = conn.Close() }()
				buffer := make([]byte, 8<<10)
				for n := 0; ; {
					read, err := conn.Read(buffer[n:])
					if err != nil {
						return
					}
					n += read
					if end := bytes.Index(buffer[:n], []byte("\r\n\r\n")); end < 0 || n < end+4+1<<10 {
						continue
					}
					n = 0
					if _, err := conn.Write(answer); err != nil {
						return
					}
				}
			}()
		}
	}()
	return l.Addr().String()
}

func cpu() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
