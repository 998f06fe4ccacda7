package upstream

import (
	"context"
	"io"
	"math/rand"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// readme gives the README's blocks of this language, in their order.
func readme(t *testing.T, language string) []string {
	t.Helper()
	text, err := os.ReadFile("README.md")
	must(t, err)
	var blocks []string
	for _, block := range strings.Split(string(text), "```"+language+"\n")[1:] {
		block, _, _ = strings.Cut(block, "```")
		blocks = append(blocks, block)
	}
	return blocks
}

// programs are those blocks that are whole files; fragments are the others.
func programs(t *testing.T) (programs, fragments []string) {
	t.Helper()
	for _, block := range readme(t, "go") {
		if strings.HasPrefix(block, "package ") {
			programs = append(programs, block)
		} else {
			fragments = append(fragments, block)
		}
	}
	return programs, fragments
}

func TestFragmentsOfTheReadmeAreThoseOfExamples(t *testing.T) {
	source, err := os.ReadFile("example_test.go")
	must(t, err)
	_, fragments := programs(t)
	if len(fragments) < 2 {
		t.Fatal("the fragments were not found")
	}
	for _, fragment := range fragments {
		if !strings.Contains(string(source), fragment) {
			t.Errorf("not in example_test.go:\n%s", fragment)
		}
	}
}

// The README's path from an empty folder, with another port and without the
// gateway's own command.
func TestTheProgramsOfTheReadmeServe(t *testing.T) {
	files, _ := programs(t)
	if len(files) != 2 {
		t.Fatalf("%d programs", len(files))
	}
	checkout, err := filepath.Abs("../..")
	must(t, err)
	folder := t.TempDir()
	run := func(folder, name string, arguments ...string) {
		t.Helper()
		command := exec.Command(name, arguments...)
		command.Dir = folder
		command.Env = append(os.Environ(), "GOFLAGS=", "GOPROXY=off", "GOWORK=off")
		if output, err := command.CombinedOutput(); err != nil {
			t.Fatalf("%s %v: %v\n%s", name, arguments, err, output)
		}
	}
	run(folder, "sh", "-ec", strings.ReplaceAll(readme(t, "sh")[0], "CHECKOUT", checkout))
	folder = filepath.Join(folder, "orders")

	v := readVectors(t)
	must(t, os.MkdirAll(filepath.Join(folder, "secrets"), 0o700))
	must(t, os.WriteFile(filepath.Join(folder, "secrets", "orders_key"), []byte("base64:"+v.SecretB64+"\n"), 0o600))
	address := freeAddress()
	must(t, os.WriteFile(filepath.Join(folder, "main.go"), []byte(strings.ReplaceAll(files[0], "127.0.0.1:3001", address)), 0o600))
	run(folder, "go", "build", "-o", "orders", ".")
	stop := start(t, folder, address)
	reads(t, &v, address)
	stop()

	must(t, os.WriteFile(filepath.Join(folder, "cart.go"), []byte(files[1]), 0o600))
	run(folder, "go", "vet", ".")
	run(folder, "go", "build", "-o", "orders", ".")
	start(t, folder, address)
	changes(t, &v, address)
	reads(t, &v, address)
}

// freeAddress has a port below those that the system gives to whoever asks for
// any: it is still free when the program has been built.
func freeAddress() string {
	random := rand.New(rand.NewSource(time.Now().UnixNano()))
	for {
		address := net.JoinHostPort("127.0.0.1", strconv.Itoa(10_000+random.Intn(4_000)))
		if listener, err := net.Listen("tcp", address); err == nil {
			listener.Close()
			return address
		}
	}
}

// start runs the program until the test ends, or until it is stopped.
func start(t *testing.T, folder, address string) (stop func()) {
	t.Helper()
	var log strings.Builder
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	command := exec.CommandContext(ctx, "./orders")
	command.Dir, command.Stderr = folder, &log
	must(t, command.Start())
	stop = func() {
		cancel()
		_ = command.Wait()
	}
	t.Cleanup(func() {
		if stop(); t.Failed() {
			t.Log(log.String())
		}
	})
	for ctx.Err() == nil {
		if conn, err := net.Dial("tcp", address); err == nil {
			conn.Close()
			return stop
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatal("it does not listen")
	return stop
}

// asked gives the status, X-Session-Set and the body for a visitor with these claims.
func asked(t *testing.T, v *vectors, method, address, path, claims string) (int, string, string) {
	t.Helper()
	r, err := http.NewRequest(method, "http://"+address+path, nil)
	must(t, err)
	if claims != "" {
		now := time.Now().Unix()
		r.Header.Set(Header, v.sign(`{"alg":"HS256","kid":"orders-1","typ":"x-session.v1+jwt"}`,
			`{"iss":"https://shop.example","aud":"orders","iat":`+strconv.FormatInt(now, 10)+`,"exp":`+strconv.FormatInt(now+60, 10)+
				`,"jti":"AA","req":"`+requestHash(method, address, path)+`",`+claims+`}`))
	}
	answer, err := http.DefaultClient.Do(r)
	must(t, err)
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	must(t, err)
	return answer.StatusCode, answer.Header.Get(SetHeader), string(body)
}

const (
	ann      = `"sub":"7","sid":"s","rev":"R","session":{"cart":["pen"]}`
	nobody   = `"session":{}`
	tooLarge = `"sub":"7","sid":"s","rev":"R","withheld":"too_large"`
	away     = `"withheld":"unavailable"`
)

func reads(t *testing.T, v *vectors, address string) {
	t.Helper()
	for _, c := range []struct {
		path, claims string
		status       int
		body         string
	}{
		{"/orders/", ann, 200, `user "7" has ["pen"] in the cart`},
		{"/orders/", nobody, 200, `user "" has [] in the cart`},
		{"/orders/", tooLarge, 503, "try again later"},
		{"/orders/", away, 503, "try again later"},
		{"/orders/", "", 401, `{"code":"x-session-missing"}`},
		{"/healthz", "", 200, "ok"},
		{"/orders/", ann, 200, `user "7" has ["pen"] in the cart`},
	} {
		status, set, body := asked(t, v, "GET", address, c.path, c.claims)
		if status != c.status || set != "" || body != c.body+"\n" {
			t.Errorf("%+v: %d %s %s", c, status, set, body)
		}
	}
}

func changes(t *testing.T, v *vectors, address string) {
	t.Helper()
	for _, c := range []struct {
		claims string
		status int
		set    string
	}{
		{ann, 200, `{"if":"R","set":{"cart":["pen","book"]}}`},
		{nobody, 200, `{"set":{"cart":["book"]}}`},
		{tooLarge, 503, ""},
		{away, 503, ""},
		{"", 401, ""},
	} {
		if status, set, body := asked(t, v, "POST", address, "/orders/add/book", c.claims); status != c.status || set != c.set {
			t.Errorf("%+v: %d %s %s", c, status, set, body)
		}
	}
	if status, set, _ := asked(t, v, "GET", address, "/orders/add/book", ann); status != 405 || set != "" {
		t.Errorf("a GET changes something: %d %s", status, set)
	}
}
