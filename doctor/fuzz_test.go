package doctor

import (
	"bufio"
	"bytes"
	"io"
	"net"
	"testing"
	"time"

	"github.com/imprint-iot/imprint/mqtt"
)

// No file makes the reading panic, and what is wrong always has a code.
func FuzzFile(f *testing.F) {
	f.Add([]byte("-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n"))
	f.Add([]byte("-----BEGIN CERTIFICATE-----\\nMAA=\\n-----END CERTIFICATE-----\\n"))
	f.Add([]byte("\xff\xfe-\x00-\x00"))
	f.Add([]byte("0\x03\x02\x01\x00"))
	f.Add([]byte("-----BEGIN EC PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n\nMAA=\n-----END EC PRIVATE KEY-----\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(bytes.TrimSpace(data)) == 0 || len(data) > maxFile {
			t.Skip() // readFile has refused it
		}
		for _, kind := range []string{certificateBlock, "PRIVATE KEY"} {
			parsed, wrong := parse("a file", data, kind)
			list, others, unreadable := parsed.certificates()
			for _, trouble := range []*finding{wrong, parsed.remark, unreadable} {
				if trouble != nil && trouble.code.description().Meaning == "" {
					t.Errorf("got %+v, want a code of the list", trouble)
				}
			}
			if len(list)+len(others) > len(parsed.blocks) {
				t.Errorf("got %d certificates and %d others of %d blocks", len(list), len(others), len(parsed.blocks))
			}
			for _, block := range parsed.blocks {
				key, err := parseKey(block)
				if key == nil && err == nil {
					t.Error("got neither a key nor an error")
				}
			}
			if len(list) > 0 {
				chain := ordered(list, len(list)-1)
				if len(chain) != len(list) || chain[0] != list[len(list)-1] {
					t.Errorf("got %d certificates in order, want all %d, the last first", len(chain), len(list))
				}
			}
		}
	})
}

// said is a connection on which a server has said all that it will.
type said struct{ *bytes.Reader }

func (said) Write(p []byte) (int, error)      { return len(p), nil }
func (said) Close() error                     { return nil }
func (said) LocalAddr() net.Addr              { return nil }
func (said) RemoteAddr() net.Addr             { return nil }
func (said) SetDeadline(time.Time) error      { return nil }
func (said) SetReadDeadline(time.Time) error  { return nil }
func (said) SetWriteDeadline(time.Time) error { return nil }

// Whatever a server says instead of CONNACK and PINGRESP, reading it ends, keeps
// little and doesn't panic.
func FuzzServer(f *testing.F) {
	f.Add([]byte{0x20, 2, 0, 0, 0xd0, 0}, byte(4))
	f.Add([]byte{0x20, 3, 0, 0, 0, 0xe0, 1, 0x8e}, byte(5))
	f.Add([]byte("HTTP/1.1 400 Bad Request\r\n"), byte(4))
	f.Add([]byte{0x30, 3, 0, 1, 'a', 0x30, 3, 0, 1, 'a', 0xd0, 0}, byte(4))
	f.Fuzz(func(t *testing.T, data []byte, version byte) {
		s := &session{conn: said{bytes.NewReader(data)}, version: mqtt.Version(version), timeout: time.Second}
		s.in = bufio.NewReader(s.conn)
		err := s.await(mqtt.TypeConnack, &mqtt.Connack{})
		if err == nil {
			err = s.await(mqtt.TypePingresp, &mqtt.Pingresp{})
		}
		if err != nil && shown(err.Error()) == "" {
			t.Error("got an error without words")
		}
		if len(s.inbox) > maxInbox {
			t.Errorf("got %d messages kept, want at most %d", len(s.inbox), maxInbox)
		}
		_, _ = io.Copy(io.Discard, s.in)
	})
}

// What a stranger says can't act on a terminal, and is bounded.
func FuzzShown(f *testing.F) {
	f.Add("\x1b[2J\u202egood\x00\xff")
	f.Fuzz(func(t *testing.T, text string) {
		got := shown(text)
		if len(got) > maxShown+20 {
			t.Errorf("got %d bytes, want about %d at most", len(got), maxShown)
		}
		for _, c := range []byte(got) {
			if c < 0x20 || c == 0x7f {
				t.Errorf("got %q, want no control characters", got)
			}
		}
	})
}
