package run

import (
	"context"
	"net"
	"testing"

	"google.golang.org/grpc"
)

func TestGRPC_IsNoFaultWhenItIsStoppedBeforeItServes(t *testing.T) {
	t.Parallel()
	for range 200 { // who is first, who serves or who stops, is the scheduler's
		var listeners []net.Listener
		for range 2 {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			listeners = append(listeners, l)
		}
		ctx, stop := context.WithCancel(t.Context())
		s := &grpcService{server: grpc.NewServer(), listeners: listeners}
		if err := s.Run(ctx, stop); err != nil {
			t.Fatalf("stopped while it starts: %v, want none", err)
		}
		for _, l := range listeners {
			if _, err := l.Accept(); err == nil {
				t.Fatal("a stopped server's listener still takes connections")
			}
		}
	}
}
