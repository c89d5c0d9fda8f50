// SPDX-License-Identifier: Apache-2.0

package proto_test

import (
	"bytes"
	"errors"
	"io"
	"net"
	"reflect"
	"strings"
	"testing"

	"vmctl/monitor/console/proto"
	"vmctl/monitor/wire"
)

// payload returns the payload of the only frame in buf.
func payload(t *testing.T, buf []byte, want proto.Type) []byte {
	t.Helper()
	s := proto.NewScanner(bytes.NewReader(buf), proto.MaxPayload)
	f, err := s.Next()
	if err != nil || f.Type != want {
		t.Fatalf("frame of type %d, %v; want type %d", f.Type, err, want)
	}
	if len(buf) != proto.HeaderLen+len(f.Payload) {
		t.Fatalf("%d bytes behind the frame", len(buf)-proto.HeaderLen-len(f.Payload))
	}
	return f.Payload
}

func TestFramesComeBack(t *testing.T) {
	hello := proto.Hello{Token: []byte("t"), Session: "s", Address: "a", Offset: 1 << 40}
	if got, err := proto.ParseHello(payload(t, proto.AppendHello(nil, &hello), proto.TypeHello)); err != nil || !reflect.DeepEqual(got, hello) {
		t.Errorf("hello: %+v, %v", got, err)
	}
	ok := proto.OK{Viewer: 7, Writer: true, Offset: 9}
	if got, err := proto.ParseOK(payload(t, proto.AppendOK(nil, ok), proto.TypeOK)); err != nil || got != ok {
		t.Errorf("ok: %+v, %v", got, err)
	}
	viewers := []proto.Viewer{{ID: 1, User: "unix:0", Writer: true}, {ID: 2, User: "local:admin"}}
	if got, err := proto.ParseViewers(payload(t, proto.AppendViewers(nil, viewers), proto.TypeViewers)); err != nil || !reflect.DeepEqual(got, viewers) {
		t.Errorf("viewers: %+v, %v", got, err)
	}
	bye := proto.Close{Code: proto.Slow, Text: "late"}
	if got, err := proto.ParseClose(payload(t, proto.AppendClose(nil, bye), proto.TypeClose)); err != nil || got != bye {
		t.Errorf("close: %+v, %v", got, err)
	}
	size := proto.Resize{Cols: 80, Rows: 24}
	if got, err := proto.ParseResize(payload(t, proto.AppendResize(nil, size), proto.TypeResize)); err != nil || got != size {
		t.Errorf("resize: %+v, %v", got, err)
	}
	at, printed, err := proto.ParseHistory(payload(t, proto.AppendHistory(nil, 5, []byte("abc")), proto.TypeHistory))
	if err != nil || at != 5 || string(printed) != "abc" {
		t.Errorf("history: %d %q, %v", at, printed, err)
	}
}

func TestBadFrames(t *testing.T) {
	for _, c := range []struct {
		name  string
		bytes []byte
		want  error
	}{
		{"nothing", nil, io.EOF},
		{"half a header", []byte{4, 0}, io.ErrUnexpectedEOF},
		{"half a payload", []byte{4, 0, 0, 2, 'a'}, io.ErrUnexpectedEOF},
		{"header alone", []byte{4, 0, 0, 2}, io.ErrUnexpectedEOF},
		{"unknown type", []byte{99, 0, 0, 0}, proto.ErrType},
		{"too long", []byte{4, 1, 0, 0}, proto.ErrTooLong},
	} {
		s := proto.NewScanner(bytes.NewReader(c.bytes), proto.MaxPayload)
		if _, err := s.Next(); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
	}
}

func TestBadPayloads(t *testing.T) {
	long := proto.Hello{Token: bytes.Repeat([]byte{1}, proto.MaxToken+1)}
	if _, err := proto.ParseHello(payload(t, proto.AppendHello(nil, &long), proto.TypeHello)); !errors.Is(err, wire.ErrTooLong) {
		t.Errorf("long token: %v", err)
	}
	if _, err := proto.ParseViewers([]byte{0xff, 0xff}); !errors.Is(err, wire.ErrTooLong) {
		t.Errorf("many viewers: %v", err)
	}
	if _, _, err := proto.ParseHistory([]byte{1}); !errors.Is(err, wire.ErrShort) {
		t.Errorf("short history: %v", err)
	}
	cut := proto.Close{Code: proto.Protocol, Text: strings.Repeat("x", 1000)}
	if got, err := proto.ParseClose(payload(t, proto.AppendClose(nil, cut), proto.TypeClose)); err != nil || len(got.Text) != proto.MaxText {
		t.Errorf("long text: %d bytes, %v", len(got.Text), err)
	}
}

func TestEveryCodeHasAName(t *testing.T) {
	seen := map[string]bool{"unknown": true}
	for c := proto.TokenUnknown; c <= proto.Protocol; c++ {
		if seen[c.String()] {
			t.Errorf("code %d is called %q", c, c)
		}
		seen[c.String()] = true
	}
	if got := proto.Code(0).String() + proto.Code(10).String(); got != "unknownunknown" {
		t.Errorf("codes outside: %q", got)
	}
}

// server plays the server's side with frames that are ready.
func server(conn net.Conn, frames ...[]byte) {
	proto.NewScanner(conn, proto.MaxPayload).Next()
	for _, f := range frames {
		conn.Write(f)
	}
}

func TestClientAnswersPingAndReportsClose(t *testing.T) {
	near, far := net.Pipe()
	defer near.Close()
	pong := make(chan proto.Type, 1)
	go func() {
		defer far.Close()
		server(far, proto.AppendOK(nil, proto.OK{Viewer: 3, Writer: true}), proto.AppendFrame(nil, proto.TypePing, nil))
		f, _ := proto.NewScanner(far, 0).Next()
		pong <- f.Type
		far.Write(proto.AppendFrame(nil, proto.TypeData, []byte("x")))
		far.Write(proto.AppendClose(nil, proto.Close{Code: proto.SessionEnded, Text: "bye"}))
	}()
	c, ok, err := proto.NewClient(near, &proto.Hello{Token: []byte("t")})
	if err != nil || ok.Viewer != 3 {
		t.Fatalf("%+v, %v", ok, err)
	}
	f, err := c.Next()
	if err != nil || f.Type != proto.TypeData || string(f.Payload) != "x" {
		t.Fatalf("%+v, %v", f, err)
	}
	if got := <-pong; got != proto.TypePong {
		t.Errorf("answered ping by %d", got)
	}
	var bye *proto.Close
	if _, err := c.Next(); !errors.As(err, &bye) || bye.Code != proto.SessionEnded {
		t.Errorf("got %v", err)
	}
}

func TestClientIsRefused(t *testing.T) {
	near, far := net.Pipe()
	defer near.Close()
	go server(far, proto.AppendClose(nil, proto.Close{Code: proto.TokenUsed}))
	var bye *proto.Close
	if _, _, err := proto.NewClient(near, &proto.Hello{}); !errors.As(err, &bye) || bye.Code != proto.TokenUsed {
		t.Errorf("got %v", err)
	}
}

func FuzzScanner(f *testing.F) {
	f.Add(proto.AppendHello(nil, &proto.Hello{Token: []byte("t"), Session: "s"}))
	f.Add(proto.AppendViewers(proto.AppendOK(nil, proto.OK{Viewer: 1}), []proto.Viewer{{ID: 1, User: "u"}}))
	f.Add(proto.AppendHistory(proto.AppendClose(nil, proto.Close{Code: 1}), 3, []byte("abc")))
	f.Fuzz(func(t *testing.T, stream []byte) {
		s := proto.NewScanner(bytes.NewReader(stream), proto.MaxPayload)
		for {
			frame, err := s.Next()
			if err != nil {
				return
			}
			proto.ParseHello(frame.Payload)
			proto.ParseOK(frame.Payload)
			proto.ParseHistory(frame.Payload)
			proto.ParseClose(frame.Payload)
			proto.ParseResize(frame.Payload)
			if v, err := proto.ParseViewers(frame.Payload); err == nil {
				again := proto.AppendViewers(nil, v)
				if !bytes.Equal(again[proto.HeaderLen:], frame.Payload) {
					t.Fatalf("viewers do not come back")
				}
			}
		}
	})
}
