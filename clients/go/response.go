package upstream

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
)

// response sends the session's change with the head of the handler's answer.
//
// What the handler may do besides (flush, hijack, push) depends on what stands
// below: withFeatures gives the value that the handler gets.
type response struct {
	http.ResponseWriter
	session *Session
	logf    func(string, ...any)
	// before is what others had set before the handler was called.
	before http.Header

	mu sync.Mutex
	// begun: the head has gone out. replaced: it was that of a 500 of ours.
	begun, replaced bool
}

// begin is called before the head goes out. It says whether it is the handler's.
func (w *response) begin(status int) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.begun {
		return !w.replaced
	}
	w.begun = true
	header := w.ResponseWriter.Header()
	value, err := w.session.finish(status, header[SetHeader])
	if err != nil {
		w.replaced = true
		w.replace(err)
		return false
	}
	if value != "" {
		header[SetHeader] = []string{value}
	}
	return true
}

// replace answers 500. Nothing of the handler's head may say otherwise.
func (w *response) replace(err *headError) {
	w.logf("ERROR: the session's change cannot be sent, and the client gets a 500: %s", err.text)
	header := w.ResponseWriter.Header()
	for name := range header {
		delete(header, name)
	}
	for name, values := range w.before {
		if name != SetHeader {
			header[name] = values
		}
	}
	answer(w.ResponseWriter, http.StatusInternalServerError, err.code)
}

func (w *response) WriteHeader(status int) {
	if status >= 100 && status <= 199 && status != http.StatusSwitchingProtocols {
		w.interim(status)
		return
	}
	if w.begin(status) {
		w.ResponseWriter.WriteHeader(status)
	}
}

// interim sends a head that is not the answer's. net/http sends with it all that
// the handler has set until then, but the gateway never reads a change there.
func (w *response) interim(status int) {
	header := w.ResponseWriter.Header()
	byHand, there := header[SetHeader]
	delete(header, SetHeader)
	w.ResponseWriter.WriteHeader(status)
	if there {
		header[SetHeader] = byHand
	}
}

func (w *response) Write(data []byte) (int, error) {
	if !w.begin(http.StatusOK) {
		return 0, ErrReplaced
	}
	return w.ResponseWriter.Write(data)
}

// WriteString is io.StringWriter.
func (w *response) WriteString(text string) (int, error) {
	if !w.begin(http.StatusOK) {
		return 0, ErrReplaced
	}
	return io.WriteString(w.ResponseWriter, text)
}

// ReadFrom is io.ReaderFrom, so that files are still sent by the system.
func (w *response) ReadFrom(from io.Reader) (int64, error) {
	if !w.begin(http.StatusOK) {
		return 0, ErrReplaced
	}
	return io.Copy(onlyReaderFrom(w.ResponseWriter), from)
}

// onlyReaderFrom hides WriterTo and the like; io.Copy finds ReaderFrom by itself.
func onlyReaderFrom(w io.Writer) io.Writer {
	if _, ok := w.(io.ReaderFrom); ok {
		return w
	}
	return struct{ io.Writer }{w}
}

// Unwrap is for http.ResponseController.
func (w *response) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// FlushError is what http.ResponseController prefers to Flush.
func (w *response) FlushError() error {
	if !w.begin(http.StatusOK) {
		return ErrReplaced
	}
	for inner := w.ResponseWriter; ; {
		// The outermost that can: what wraps the others may hold bytes back.
		switch flusher := inner.(type) {
		case interface{ FlushError() error }:
			return flusher.FlushError()
		case http.Flusher:
			flusher.Flush()
			return nil
		case interface{ Unwrap() http.ResponseWriter }:
			inner = flusher.Unwrap()
		default:
			return fmt.Errorf("upstream: %w: flush", http.ErrNotSupported)
		}
	}
}

// find looks for what a writer, or one that it wraps, can do. Were it to look at
// the outermost only, http.ResponseController would find it further in, past us.
func find[T any](w http.ResponseWriter) (T, bool) {
	for {
		if found, ok := w.(T); ok {
			return found, true
		}
		wrapper, ok := w.(interface{ Unwrap() http.ResponseWriter })
		if !ok {
			var none T
			return none, false
		}
		w = wrapper.Unwrap()
	}
}

type flusher struct{ w *response }

func (f flusher) Flush() { _ = f.w.FlushError() }

type hijacker struct {
	w     *response
	inner http.Hijacker
}

// Hijack is refused while there is a change that would be lost.
func (h hijacker) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	h.w.mu.Lock()
	defer h.w.mu.Unlock()
	if !h.w.begun && h.w.session.isChanged() {
		return nil, nil, ErrHijackChanged
	}
	conn, buffer, err := h.inner.Hijack()
	if err == nil {
		h.w.begun = true
		h.w.session.close()
	}
	return conn, buffer, err
}

// withFeatures is the writer with just the optional interfaces that those below
// have: handlers ask for them, and go other ways without.
func (w *response) withFeatures() http.ResponseWriter {
	_, flushes := find[http.Flusher](w.ResponseWriter)
	hijack, hijacks := find[http.Hijacker](w.ResponseWriter)
	push, pushes := find[http.Pusher](w.ResponseWriter)
	f, h := flusher{w}, hijacker{w, hijack}
	switch {
	case flushes && hijacks && pushes:
		return struct {
			*response
			flusher
			hijacker
			http.Pusher
		}{w, f, h, push}
	case flushes && hijacks:
		return struct {
			*response
			flusher
			hijacker
		}{w, f, h}
	case flushes && pushes:
		return struct {
			*response
			flusher
			http.Pusher
		}{w, f, push}
	case hijacks && pushes:
		return struct {
			*response
			hijacker
			http.Pusher
		}{w, h, push}
	case flushes:
		return struct {
			*response
			flusher
		}{w, f}
	case hijacks:
		return struct {
			*response
			hijacker
		}{w, h}
	case pushes:
		return struct {
			*response
			http.Pusher
		}{w, push}
	default:
		return w
	}
}
