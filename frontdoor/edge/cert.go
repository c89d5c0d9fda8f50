// SPDX-License-Identifier: Apache-2.0

package edge

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// checkEvery is how often at most a handshake looks whether the files of the
// certificate have changed.
const checkEvery = time.Second

// Certificate is a certificate and its key in two PEM files, read again when
// they change. It may be used concurrently.
type Certificate struct {
	certFile, keyFile string
	now               func() time.Time
	log               *slog.Logger

	mu      sync.Mutex
	current *tls.Certificate // guarded by mu, as the rest
	seen    [2]stamp
	checked time.Time
}

// stamp is what changes when a file is written or replaced.
type stamp struct {
	at   time.Time
	size int64
}

// LoadCertificate reads the files.
func LoadCertificate(certFile, keyFile string, now func() time.Time, log *slog.Logger) (*Certificate, error) {
	c := &Certificate{certFile: certFile, keyFile: keyFile, now: now, log: log, checked: now()}
	seen, err := c.stamps()
	if err != nil {
		return nil, fmt.Errorf("read certificate: %w", err)
	}
	pair, err := tls.LoadX509KeyPair(certFile, keyFile)
	if err != nil {
		return nil, fmt.Errorf("read certificate: %w", err)
	}
	c.current, c.seen = &pair, seen
	return c, nil
}

// Config is for a server: TLS 1.2 at the least, HTTP/2 and HTTP/1.1.
func (c *Certificate) Config() *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: c.get, NextProtos: []string{"h2", "http/1.1"}}
}

// Fingerprint is the SHA-256 of the certificate, upper-case hexadecimal with
// colons.
func (c *Certificate) Fingerprint() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return fingerprint(c.current.Certificate[0])
}

func fingerprint(der []byte) string {
	sum := sha256.Sum256(der)
	var b bytes.Buffer
	for i, x := range sum {
		if i > 0 {
			b.WriteByte(':')
		}
		fmt.Fprintf(&b, "%02X", x)
	}
	return b.String()
}

func (c *Certificate) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if now := c.now(); now.Sub(c.checked) >= checkEvery {
		c.checked = now
		c.reload()
	}
	return c.current, nil
}

// reload takes changed files. Files that do not fit together (one is written
// after the other) leave the old pair in use; each change is tried until it
// fits and complained of once.
func (c *Certificate) reload() {
	seen, err := c.stamps()
	if err == nil && seen == c.seen {
		return
	}
	changed := err == nil
	var pair tls.Certificate
	if err == nil {
		pair, err = tls.LoadX509KeyPair(c.certFile, c.keyFile)
	}
	if changed {
		c.seen = seen
	}
	if err != nil {
		c.log.Error("certificate is not taken, the old one stays", "op", "reload certificate", "err", err)
		return
	}
	c.current = &pair
	c.log.Info("certificate taken", "op", "reload certificate", "sha256", fingerprint(pair.Certificate[0]))
}

func (c *Certificate) stamps() ([2]stamp, error) {
	var s [2]stamp
	for i, name := range []string{c.certFile, c.keyFile} {
		info, err := os.Stat(name)
		if err != nil {
			return s, err
		}
		s[i] = stamp{at: info.ModTime(), size: info.Size()}
	}
	return s, nil
}

// selfSignedLife is long, as browsers and the CLI know such a certificate by
// its fingerprint and would have to be told of a new one.
const selfSignedLife = 10 * 365 * 24 * time.Hour

// EnsureCertificate makes a self-signed certificate (ECDSA P-256) for this
// host's names and addresses and for names, unless the files are there; made
// says whether it did. Only one of both files is an error.
func EnsureCertificate(certFile, keyFile string, names []string, now time.Time) (made bool, err error) {
	_, certErr := os.Stat(certFile)
	_, keyErr := os.Stat(keyFile)
	if certErr == nil && keyErr == nil {
		return false, nil
	}
	if certErr == nil || keyErr == nil || !errors.Is(certErr, fs.ErrNotExist) || !errors.Is(keyErr, fs.ErrNotExist) {
		return false, fmt.Errorf("certificate and key are not both there: %w", errors.Join(certErr, keyErr))
	}
	cert, key, err := selfSigned(names, now)
	if err != nil {
		return false, fmt.Errorf("make certificate: %w", err)
	}
	// The certificate last: it is what the next start looks for in a pair.
	if err := writeNew(keyFile, key, 0o600); err != nil {
		return false, fmt.Errorf("make certificate: %w", err)
	}
	if err := writeNew(certFile, cert, 0o644); err != nil {
		return false, errors.Join(fmt.Errorf("make certificate: %w", err), os.Remove(keyFile))
	}
	return true, nil
}

func selfSigned(names []string, now time.Time) (certPEM, keyPEM []byte, err error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, nil, err
	}
	template := &x509.Certificate{
		SerialNumber: serial.Add(serial, big.NewInt(1)), Subject: pkix.Name{CommonName: "vmctl"},
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(selfSignedLife),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true,
	}
	template.DNSNames, template.IPAddresses = hostNames(names)
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, nil, err
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}), nil
}

// hostNames are the names and addresses by which this host may be called.
// What cannot be found out is left out: the fingerprint is what counts.
func hostNames(more []string) (names []string, addresses []net.IP) {
	names = []string{"localhost"}
	if host, err := os.Hostname(); err == nil && host != "" && host != "localhost" {
		names = append(names, host)
	}
	addresses = []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback}
	if all, err := net.InterfaceAddrs(); err == nil {
		for _, a := range all {
			if n, ok := a.(*net.IPNet); ok && !n.IP.IsLoopback() && !n.IP.IsLinkLocalUnicast() {
				addresses = append(addresses, n.IP)
			}
		}
	}
	for _, m := range more {
		if ip := net.ParseIP(m); ip != nil {
			addresses = append(addresses, ip)
		} else if m != "" {
			names = append(names, m)
		}
	}
	return names, addresses
}

func writeNew(name string, content []byte, mode fs.FileMode) error {
	if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		return err
	}
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	return errors.Join(err, f.Sync(), f.Close())
}
