package upstream

import (
	"bufio"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/textproto"
	"os"
	"reflect"
	"strings"
	"testing"
)

// answered gives what a handler with a session of {"a":1} answers.
func answered(t *testing.T, method string, handler func(http.ResponseWriter, *Session)) (*http.Response, string) {
	t.Helper()
	v := readVectors(t)
	config := v.config()
	config.CheckRequest = CheckNever
	r := request(method, v.token(`"sid":"s","rev":"R","session":{"a":1}`))
	return ask(t, config, r, func(w http.ResponseWriter, r *http.Request) {
		session, ok := FromContext(r.Context())
		if !ok {
			t.Fatal("no session")
		}
		handler(w, session)
	})
}

func TestTheChangeGoesOutWithEveryHeadBelow500(t *testing.T) {
	for name, end := range map[string]func(http.ResponseWriter){
		"nothing":     func(http.ResponseWriter) {},
		"200":         func(w http.ResponseWriter) { w.WriteHeader(200) },
		"204":         func(w http.ResponseWriter) { w.WriteHeader(204) },
		"303":         func(w http.ResponseWriter) { http.Redirect(w, httptest.NewRequest("GET", "/", nil), "/", 303) },
		"304":         func(w http.ResponseWriter) { w.WriteHeader(304) },
		"404":         func(w http.ResponseWriter) { http.Error(w, "none", 404) },
		"Write":       func(w http.ResponseWriter) { _, _ = w.Write([]byte("a")) },
		"WriteString": func(w http.ResponseWriter) { _, _ = io.WriteString(w, "a") },
		"ReadFrom":    func(w http.ResponseWriter) { _, _ = w.(io.ReaderFrom).ReadFrom(strings.NewReader("a")) },
		"Flush":       func(w http.ResponseWriter) { w.(http.Flusher).Flush() },
		"FlushError":  func(w http.ResponseWriter) { _ = w.(interface{ FlushError() error }).FlushError() },
	} {
		for _, method := range []string{"GET", "HEAD"} {
			answer, lines := answered(t, method, func(w http.ResponseWriter, s *Session) {
				must(t, s.Set("a", 2))
				end(w)
				if err := s.Set("a", 3); name != "nothing" && !errors.Is(err, ErrClosed) {
					t.Errorf("%s: a change after the head: %v", name, err)
				}
			})
			wanted := `{"set":{"a":2}}`
			if name == "nothing" {
				wanted = `{"set":{"a":3}}`
			}
			if values := answer.Header[SetHeader]; len(values) != 1 || values[0] != wanted || lines != "" {
				t.Errorf("%s %s: %q %s", method, name, values, lines)
			}
		}
	}
}

func TestWithoutAChangeThereIsNoHeader(t *testing.T) {
	answer, _ := answered(t, "GET", func(w http.ResponseWriter, s *Session) {
		var a int
		must(t, s.Get("a", &a), s.Set("a", a))
		_, _ = io.WriteString(w, "a")
	})
	if _, there := answer.Header[SetHeader]; there {
		t.Error(answer.Header)
	}
}

func TestAnErrorAnswerChangesNothing(t *testing.T) {
	for _, status := range []int{500, 503, 599} {
		answer, lines := answered(t, "GET", func(w http.ResponseWriter, s *Session) {
			must(t, s.Set("a", strings.Repeat("x", 20_000)))
			w.WriteHeader(status)
		})
		if _, there := answer.Header[SetHeader]; there || answer.StatusCode != status || lines != "" {
			t.Errorf("%d %v %s", answer.StatusCode, answer.Header, lines)
		}
	}
}

func TestAChangeThatCannotBeSentIsA500AndNothingOfTheAnswer(t *testing.T) {
	for code, change := range map[string]func(http.ResponseWriter, *Session) error{
		"too-large": func(_ http.ResponseWriter, s *Session) error { return s.Set("a", strings.Repeat("x", 20_000)) },
		"twice": func(w http.ResponseWriter, s *Session) error {
			w.Header().Set("x-session-set", "{}")
			return s.Set("a", "x")
		},
	} {
		answer, lines := answered(t, "GET", func(w http.ResponseWriter, s *Session) {
			must(t, change(w, s))
			w.Header().Set("Location", "/welcome")
			w.Header().Set("Content-Length", "7")
			w.WriteHeader(303)
			if _, err := io.WriteString(w, "welcome"); !errors.Is(err, ErrReplaced) {
				t.Errorf("%v", err)
			}
			if _, err := w.Write([]byte("welcome")); !errors.Is(err, ErrReplaced) {
				t.Errorf("%v", err)
			}
			if _, err := io.Copy(w, strings.NewReader("welcome")); !errors.Is(err, ErrReplaced) {
				t.Errorf("%v", err)
			}
			w.WriteHeader(200)
		})
		body, _ := io.ReadAll(answer.Body)
		if answer.StatusCode != 500 || string(body) != `{"code":"x-session-set-`+code+`"}`+"\n" {
			t.Errorf("%s: %d %s", code, answer.StatusCode, body)
		}
		for _, name := range []string{"Location", "Content-Length", SetHeader} {
			if _, there := answer.Header[name]; there {
				t.Errorf("%s: %s is left", code, name)
			}
		}
		if !strings.HasPrefix(lines, "ERROR: ") || strings.Contains(lines, "xxx") {
			t.Errorf("%s: %s", code, lines)
		}
	}
}

func TestTheHeadersOfOuterMiddlewareStay(t *testing.T) {
	v := readVectors(t)
	recorder := httptest.NewRecorder()
	recorder.Header().Set("X-Outer", "1")
	recorder.Header().Set(SetHeader, `{"cycle":true}`)
	config := v.config()
	config.ErrorLog = log.New(io.Discard, "", 0)
	handler := middlewareOf(t, config).Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s, _ := FromContext(r.Context())
		w.Header().Set("X-Outer", "2")
		w.Header().Del(SetHeader)
		must(t, s.Set("a", strings.Repeat("x", 20_000)))
	}))
	handler.ServeHTTP(recorder, request("GET", v.token(`"session":{}`)))
	if recorder.Code != 500 || recorder.Header().Get("X-Outer") != "1" {
		t.Errorf("%d %v", recorder.Code, recorder.Header())
	}
	// But no change: the 500 is no answer of the handler's.
	if _, there := recorder.Header()[SetHeader]; there {
		t.Error(recorder.Header())
	}
}

func TestAHeaderThatIsSetByHandIsLeftAlone(t *testing.T) {
	answer, _ := answered(t, "GET", func(w http.ResponseWriter, _ *Session) { w.Header().Set(SetHeader, `{"cycle":true}`) })
	if values := answer.Header[SetHeader]; len(values) != 1 || values[0] != `{"cycle":true}` {
		t.Error(values)
	}
}

func TestAPanicChangesNothing(t *testing.T) {
	v := readVectors(t)
	recorder := httptest.NewRecorder()
	var session *Session
	func() {
		defer func() { _ = recover() }()
		middlewareOf(t, v.config()).Handler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			session, _ = FromContext(r.Context())
			must(t, session.Set("a", 1))
			panic(http.ErrAbortHandler)
		})).ServeHTTP(recorder, request("GET", v.token(`"session":{}`)))
	}()
	if _, there := recorder.Header()[SetHeader]; there {
		t.Error(recorder.Header())
	}
	if err := session.Set("a", 2); !errors.Is(err, ErrClosed) {
		t.Error(err)
	}
}

// served runs handlers behind a real server, where HTTP/1.1 is what it is.
func served(t *testing.T, handler http.HandlerFunc) (*httptest.Server, func() net.Conn) {
	t.Helper()
	v := readVectors(t)
	config := v.config()
	config.CheckRequest = CheckNever
	server := httptest.NewServer(middlewareOf(t, config).Handler(handler))
	t.Cleanup(server.Close)
	return server, func() net.Conn {
		conn, err := net.Dial("tcp", server.Listener.Addr().String())
		must(t, err)
		t.Cleanup(func() { conn.Close() })
		_, err = io.WriteString(conn, "GET / HTTP/1.1\r\nHost: example.com\r\nX-Session: "+v.token(`"session":{"a":1}`)+"\r\n\r\n")
		must(t, err)
		return conn
	}
}

func TestAnInterimHeadDoesNotCarryTheChange(t *testing.T) {
	for _, byHand := range []bool{false, true} {
		_, dial := served(t, func(w http.ResponseWriter, r *http.Request) {
			s, _ := FromContext(r.Context())
			w.Header().Set("Link", "</a.css>")
			if byHand {
				w.Header().Set(SetHeader, `{"set":{"a":2}}`)
			} else {
				must(t, s.Set("a", 1))
			}
			w.WriteHeader(103)
			if !byHand {
				must(t, s.Set("a", 2))
			}
			w.WriteHeader(200)
		})
		reader := textproto.NewReader(bufio.NewReader(dial()))
		for _, wanted := range []struct{ status, set string }{{"103", ""}, {"200", `{"set":{"a":2}}`}} {
			line, err := reader.ReadLine()
			must(t, err)
			header, err := reader.ReadMIMEHeader()
			must(t, err)
			if !strings.Contains(line, wanted.status) || header.Get("Link") == "" || header.Get(SetHeader) != wanted.set {
				t.Errorf("%s %v", line, header)
			}
		}
	}
}

func TestAHijackedConnectionLosesNoChange(t *testing.T) {
	_, dial := served(t, func(w http.ResponseWriter, r *http.Request) {
		s, _ := FromContext(r.Context())
		must(t, s.Set("a", 2))
		if _, _, err := w.(http.Hijacker).Hijack(); !errors.Is(err, ErrHijackChanged) {
			t.Errorf("%v", err)
		}
		value, err := s.Take()
		must(t, err)
		conn, _, err := w.(http.Hijacker).Hijack()
		must(t, err)
		defer conn.Close()
		if err := s.Set("a", 3); !errors.Is(err, ErrClosed) {
			t.Errorf("%v", err)
		}
		_, _ = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nX-Session-Set: "+value+"\r\n\r\n")
	})
	answer, err := http.ReadResponse(bufio.NewReader(dial()), nil)
	must(t, err)
	if answer.Header.Get(SetHeader) != `{"set":{"a":2}}` {
		t.Error(answer.Header)
	}
}

// As gorilla/websocket answers a handshake that it does not like.
func TestATakenChangeGoesOutWhenTheHandshakeFails(t *testing.T) {
	const change = `{"set":{"a":2}}`
	for name, c := range map[string]struct {
		end    func(http.ResponseWriter, string)
		status int
		sent   []string
	}{
		"http.Error":  {func(w http.ResponseWriter, _ string) { http.Error(w, "Bad Request", 400) }, 400, []string{change}},
		"nothing":     {func(http.ResponseWriter, string) {}, 200, []string{change}},
		"set by hand": {func(w http.ResponseWriter, set string) { w.Header().Set(SetHeader, set) }, 200, []string{change}},
		"500":         {func(w http.ResponseWriter, _ string) { http.Error(w, "failed", 500) }, 500, nil},
		"another one": {func(w http.ResponseWriter, _ string) { w.Header().Set(SetHeader, "{}") }, 500, nil},
		"set twice":   {func(w http.ResponseWriter, set string) { w.Header()[SetHeader] = []string{set, set} }, 500, nil},
	} {
		answer, lines := answered(t, "GET", func(w http.ResponseWriter, s *Session) {
			must(t, s.Set("a", 2))
			set, err := s.Take()
			must(t, err)
			c.end(w, set)
		})
		if values := answer.Header[SetHeader]; answer.StatusCode != c.status || !reflect.DeepEqual(values, c.sent) {
			t.Errorf("%s: %d %q %s", name, answer.StatusCode, values, lines)
		}
	}
	answer, _ := answered(t, "GET", func(w http.ResponseWriter, s *Session) {
		if set, err := s.Take(); set != "" || err != nil {
			t.Error(set, err)
		}
		http.Error(w, "Bad Request", 400)
	})
	if _, there := answer.Header[SetHeader]; there {
		t.Error("a change out of nothing")
	}
}

func TestAHijackEndsTheSession(t *testing.T) {
	_, dial := served(t, func(w http.ResponseWriter, r *http.Request) {
		s, _ := FromContext(r.Context())
		conn, _, err := w.(http.Hijacker).Hijack()
		must(t, err)
		defer conn.Close()
		if err := s.Set("a", 3); !errors.Is(err, ErrClosed) {
			t.Errorf("%v", err)
		}
	})
	_, _ = io.ReadAll(dial())
}

func TestAHandshakeByWriteHeaderCarriesTheChange(t *testing.T) {
	_, dial := served(t, func(w http.ResponseWriter, r *http.Request) {
		s, _ := FromContext(r.Context())
		must(t, s.Set("a", 2))
		w.Header().Set("Connection", "upgrade")
		w.Header().Set("Upgrade", "echo")
		w.WriteHeader(101)
		conn, _, err := w.(http.Hijacker).Hijack()
		must(t, err)
		conn.Close()
	})
	answer, err := http.ReadResponse(bufio.NewReader(dial()), nil)
	must(t, err)
	if answer.StatusCode != 101 || answer.Header.Get(SetHeader) != `{"set":{"a":2}}` {
		t.Error(answer.StatusCode, answer.Header)
	}
}

func TestAFileIsServedWithTheChange(t *testing.T) {
	name := t.TempDir() + "/file.txt"
	must(t, os.WriteFile(name, []byte("contents"), 0o600))
	_, dial := served(t, func(w http.ResponseWriter, r *http.Request) {
		s, _ := FromContext(r.Context())
		must(t, s.Delete("a"))
		http.ServeFile(w, r, name)
	})
	answer, err := http.ReadResponse(bufio.NewReader(dial()), nil)
	must(t, err)
	body := make([]byte, answer.ContentLength)
	_, err = io.ReadFull(answer.Body, body)
	must(t, err)
	if string(body) != "contents" || answer.Header.Get(SetHeader) != `{"del":["a"]}` {
		t.Errorf("%s %v", body, answer.Header)
	}
}

type bare struct{ header http.Header }

func (b *bare) Header() http.Header            { return b.header }
func (b *bare) Write(data []byte) (int, error) { return len(data), nil }
func (b *bare) WriteHeader(int)                {}

type canFlush struct{ http.ResponseWriter }

func (canFlush) Flush() {}

type canHijack struct{ http.ResponseWriter }

func (canHijack) Hijack() (net.Conn, *bufio.ReadWriter, error) { return nil, nil, nil }

type canPush struct{ http.ResponseWriter }

func (canPush) Push(string, *http.PushOptions) error { return nil }

type wrapper struct{ http.ResponseWriter }

func (w wrapper) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func TestTheWriterCanJustWhatThoseBelowCan(t *testing.T) {
	v := readVectors(t)
	mw := middlewareOf(t, v.config())
	for mask := 0; mask < 8; mask++ {
		flushes, hijacks, pushes := mask&1 != 0, mask&2 != 0, mask&4 != 0
		var w http.ResponseWriter = wrapper{&bare{http.Header{}}}
		switch mask {
		case 1:
			w = canFlush{w}
		case 2:
			w = canHijack{w}
		case 3:
			w = struct {
				canFlush
				http.Hijacker
			}{canFlush{w}, canHijack{}}
		case 4:
			w = canPush{w}
		case 5:
			w = struct {
				canFlush
				http.Pusher
			}{canFlush{w}, canPush{}}
		case 6:
			w = struct {
				canHijack
				http.Pusher
			}{canHijack{w}, canPush{}}
		case 7:
			w = struct {
				canFlush
				http.Hijacker
				http.Pusher
			}{canFlush{w}, canHijack{}, canPush{}}
		}
		// What stands further in is found by Unwrap, as http.ResponseController does.
		for _, outer := range []http.ResponseWriter{w, wrapper{wrapper{w}}} {
			mw.Handler(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				_, f := w.(http.Flusher)
				_, h := w.(http.Hijacker)
				_, p := w.(http.Pusher)
				if f != flushes || h != hijacks || p != pushes {
					t.Errorf("%d: %v %v %v", mask, f, h, p)
				}
				if w.(interface{ Unwrap() http.ResponseWriter }).Unwrap() != outer {
					t.Errorf("%d: Unwrap gives another writer", mask)
				}
				err := w.(interface{ FlushError() error }).FlushError()
				if flushes == errors.Is(err, http.ErrNotSupported) {
					t.Errorf("%d: %v", mask, err)
				}
			})).ServeHTTP(outer, request("GET", v.token(`"session":{}`)))
		}
	}
}

type recordsFlush struct {
	http.ResponseWriter
	flushed *bool
}

func (r recordsFlush) Flush() { *r.flushed = true }

func (r recordsFlush) Unwrap() http.ResponseWriter { return r.ResponseWriter }

type flushesWithError struct{ http.ResponseWriter }

func (flushesWithError) FlushError() error { return nil }

func TestTheOutermostWriterIsFlushed(t *testing.T) {
	v := readVectors(t)
	flushed := false
	w := recordsFlush{flushesWithError{&bare{http.Header{}}}, &flushed}
	middlewareOf(t, v.config()).Handler(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.(http.Flusher).Flush()
	})).ServeHTTP(w, request("GET", v.token(`"session":{}`)))
	if !flushed {
		t.Error("a wrapper's bytes were held back")
	}
}
