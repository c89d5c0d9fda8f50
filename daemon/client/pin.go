// SPDX-License-Identifier: Apache-2.0

package client

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"strings"
)

// Pin is the SHA-256 of one certificate. A server that shows it is the right
// one, whatever its name, its issuer and its dates say.
type Pin [sha256.Size]byte

// ParseFingerprint reads 64 hexadecimal digits, with or without colons
// between bytes and with or without the prefix "SHA256:".
func ParseFingerprint(s string) (Pin, error) {
	digits := strings.TrimSpace(s)
	if len(digits) > 7 && strings.EqualFold(digits[:7], "sha256:") {
		digits = digits[7:]
	}
	raw, err := hex.DecodeString(strings.ReplaceAll(digits, ":", ""))
	if err != nil || len(raw) != sha256.Size {
		return Pin{}, errors.New("fingerprint: must be a SHA-256 in 64 hexadecimal digits")
	}
	return Pin(raw), nil
}

// String returns the bytes in upper-case hexadecimal with colons between.
func (p Pin) String() string {
	parts := make([]string, len(p))
	for i, b := range p {
		parts[i] = fmt.Sprintf("%02X", b)
	}
	return strings.Join(parts, ":")
}

// PinError says that a server showed another certificate than the pinned one.
type PinError struct {
	Want, Got Pin
}

func (e *PinError) Error() string {
	return fmt.Sprintf("the server's certificate is not the pinned one: it has SHA-256 %s, pinned is %s", e.Got, e.Want)
}

// apply makes the pin the one check of the peer's certificate.
func (p Pin) apply(cfg *tls.Config) {
	cfg.InsecureSkipVerify = true // VerifyConnection decides, also for resumed sessions
	cfg.VerifyConnection = func(cs tls.ConnectionState) error {
		if got := pinOf(cs.PeerCertificates[0]); got != p {
			return &PinError{Want: p, Got: got}
		}
		return nil
	}
}

func pinOf(cert *x509.Certificate) Pin { return sha256.Sum256(cert.Raw) }

// errProbed ends the handshake of a probe once the certificate was seen.
var errProbed = errors.New("the certificate was seen")

// ProbeCertificate connects to a server, sends nothing, and returns the pin
// of the certificate it shows. trusted is true when the system's authorities
// vouch for it under the server's name, so that no pin is needed.
func ProbeCertificate(ctx context.Context, server string) (pin Pin, trusted bool, err error) {
	base, err := ParseServer(server)
	if err != nil {
		return Pin{}, false, err
	}
	transport, err := tlsTransport("") // the same way, and proxy, as later calls
	if err != nil {
		return Pin{}, false, err
	}
	defer transport.CloseIdleConnections()
	transport.TLSClientConfig.InsecureSkipVerify = true
	transport.TLSClientConfig.VerifyConnection = func(cs tls.ConnectionState) error {
		pin, trusted = pinOf(cs.PeerCertificates[0]), vouched(cs.PeerCertificates, cs.ServerName)
		return errProbed
	}
	ctx, cancel := context.WithTimeoutCause(ctx, defaultTimeout, errTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodHead, base, nil)
	if err != nil {
		return Pin{}, false, err
	}
	res, err := transport.RoundTrip(req)
	if errors.Is(err, errProbed) {
		return pin, trusted, nil
	}
	if err == nil {
		res.Body.Close()
		err = errors.New("no TLS")
	}
	if cause := context.Cause(ctx); cause != nil {
		err = cause
	}
	return Pin{}, false, fmt.Errorf("connect %s: %w", base, err)
}

func vouched(certs []*x509.Certificate, host string) bool {
	between := x509.NewCertPool()
	for _, c := range certs[1:] {
		between.AddCert(c)
	}
	_, err := certs[0].Verify(x509.VerifyOptions{DNSName: host, Intermediates: between})
	return err == nil
}
