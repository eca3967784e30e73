package sender

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"shopbell.dev/pkg/address"
)

// authority signs certificates.
type authority struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	ca := &authority{}
	c := ca.make(t, &x509.Certificate{
		Subject: pkix.Name{CommonName: "an operator's own"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	})
	ca.certificate, ca.key = c.Leaf, c.PrivateKey.(*ecdsa.PrivateKey)
	return ca
}

// issue gives a certificate for a host, or for a client of that name.
func (ca *authority) issue(t *testing.T, name string) tls.Certificate {
	t.Helper()
	c := &x509.Certificate{
		Subject: pkix.Name{CommonName: name}, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	if ip := net.ParseIP(name); ip != nil {
		c.IPAddresses = []net.IP{ip}
	} else {
		c.DNSNames = []string{name}
	}
	return ca.make(t, c)
}

func (ca *authority) make(t *testing.T, c *x509.Certificate) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c.SerialNumber, c.NotBefore, c.NotAfter = big.NewInt(time.Now().UnixNano()), time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	parent, signer := ca.certificate, ca.key
	if parent == nil {
		parent, signer = c, key
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, &key.PublicKey, signer)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
}

// file writes the authority's certificate for an operator's settings.
func (ca *authority) file(t *testing.T) string {
	t.Helper()
	return write(t, "ca.pem", "CERTIFICATE", ca.certificate.Raw)
}

func write(t *testing.T, name, kind string, der []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func secure(t *testing.T, config *tls.Config, answer http.HandlerFunc) string {
	t.Helper()
	s := httptest.NewUnstartedServer(answer)
	s.EnableHTTP2, s.TLS = true, config
	s.StartTLS()
	t.Cleanup(func() { s.CloseClientConnections(); s.Close() })
	return s.URL
}

func TestDo_TrustsTheOperatorsAuthorityToo(t *testing.T) {
	t.Parallel()
	ca, other := newAuthority(t), newAuthority(t)
	c := clientWith(t, address.NewGuard(address.Private...), Config{CAFile: ca.file(t)}, nil)
	for _, row := range []struct {
		name, class string
		by          *authority
		host        string
	}{
		{"signed by it", "", ca, "127.0.0.1"},
		{"signed by another", "tls", other, "127.0.0.1"},
		{"signed by it for another host", "tls", ca, "127.0.0.2"},
	} {
		target := secure(t, &tls.Config{Certificates: []tls.Certificate{row.by.issue(t, row.host)}}, func(http.ResponseWriter, *http.Request) {})
		if x := do(t.Context(), c, target, http.Header{}, nil, 10*time.Second, 1<<10); x.class != row.class {
			t.Errorf("%s: %s: %s, want %q", row.name, x.class, x.problem, row.class)
		}
	}
	system, err := x509.SystemCertPool()
	if err != nil {
		t.Fatal(err)
	}
	system.AddCert(ca.certificate)
	if !system.Equal(c.transport.TLSClientConfig.RootCAs) {
		t.Error("whom the machine trusts is no longer trusted")
	}
}

func TestDo_ShowsItsCertificateToWhoAsks(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	clients := x509.NewCertPool()
	clients.AddCert(ca.certificate)
	own := ca.issue(t, "shopbell.example.com")
	key, err := x509.MarshalPKCS8PrivateKey(own.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	with := Config{CAFile: ca.file(t), ClientCertificate: write(t, "client.pem", "CERTIFICATE", own.Certificate[0]), ClientKey: write(t, "client.key", "PRIVATE KEY", key)}
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		target := secure(t, &tls.Config{
			Certificates: []tls.Certificate{ca.issue(t, "127.0.0.1")}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: clients, MaxVersion: version,
		}, func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.WriteString(w, r.TLS.PeerCertificates[0].Subject.CommonName)
		})
		c := clientWith(t, address.NewGuard(address.Private...), with, nil)
		if x := do(t.Context(), c, target, http.Header{}, nil, 10*time.Second, 1<<10); string(x.body) != "shopbell.example.com" {
			t.Errorf("TLS %x: %d %s: %s, %q", version, x.code, x.class, x.problem, x.body)
		}
		c = clientWith(t, address.NewGuard(address.Private...), Config{CAFile: with.CAFile}, nil)
		x := do(t.Context(), c, target, http.Header{}, nil, 10*time.Second, 1<<10)
		switch {
		case x.class == "tls" && (version == tls.VersionTLS12 || strings.Contains(x.problem, "sender.client_certificate")):
		case x.class == "connect" && version == tls.VersionTLS13: // it hangs up before its reason can be read, now and then
		default:
			t.Errorf("TLS %x, without a certificate: %d %s: %s, want tls", version, x.code, x.class, x.problem)
		}
	}
}

func TestNewClient_SaysWhatIsWrongWithItsFiles(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	certificate, empty := ca.file(t), filepath.Join(t.TempDir(), "empty.pem")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct {
		name string
		cfg  Config
		want []string
	}{
		{"no file of authorities", Config{CAFile: "/no/such/file.pem"}, []string{"sender.ca_file", "/no/such/file.pem"}},
		{"no authority in it", Config{CAFile: empty}, []string{"sender.ca_file", "no certificate", empty}},
		{"no client certificate", Config{ClientCertificate: "/no/such/file.pem", ClientKey: empty}, []string{"sender.client_certificate", "/no/such/file.pem"}},
		{"no key", Config{ClientCertificate: certificate, ClientKey: empty}, []string{"sender.client_key"}},
	} {
		_, err := newClient(address.NewGuard(), row.cfg, nil)
		for _, want := range row.want {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %v, want %q", row.name, err, want)
			}
		}
	}
}

func TestConfig_SaysWhatIsWrongWithExchanges(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name string
		set  func(*Config)
		want string // empty: it is good
	}{
		{"the defaults", func(*Config) {}, ""},
		{"no idle connections", func(c *Config) { c.MaxIdleConnections = 0 }, ""},
		{"too many idle connections", func(c *Config) { c.MaxIdleConnections = 100_001 }, "max_idle_connections"},
		{"a certificate without a key", func(c *Config) { c.ClientCertificate = "a" }, "client_key"},
		{"a key without a certificate", func(c *Config) { c.ClientKey = "a" }, "client_certificate"},
		{"a proxy", func(c *Config) { c.ProxyURL = "http://proxy.example.com:3128" }, ""},
		{"a proxy with a password", func(c *Config) { c.ProxyURL = "socks5://user:s3cret@10.0.0.1:1080/" }, ""},
		{"a proxy without a port", func(c *Config) { c.ProxyURL = "http://user:s3cret@proxy.example.com" }, "no port"},
		{"a proxy without a scheme", func(c *Config) { c.ProxyURL = "proxy.example.com:3128" }, "no URL"},
		{"a proxy that is no URL", func(c *Config) { c.ProxyURL = "http://user:s3cret@%zz:1" }, "no URL"},
		{"a proxy of another kind", func(c *Config) { c.ProxyURL = "socks4://proxy.example.com:1080" }, "socks4"},
		{"a proxy with a path", func(c *Config) { c.ProxyURL = "http://proxy.example.com:3128/x" }, "path"},
	} {
		c := Defaults()
		row.set(&c)
		err := c.Validate()
		if row.want == "" && err != nil || row.want != "" && (err == nil || !strings.Contains(err.Error(), row.want)) {
			t.Errorf("%s: %v, want %q", row.name, err, row.want)
		}
		if err != nil && strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%s: the password is in %v", row.name, err)
		}
	}
}
