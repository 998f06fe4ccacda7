package upstream

import (
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
)

// minSecret is the shortest secret, in bytes: that of HMAC-SHA256's output.
const minSecret = 32

// A key knows its algorithm, so that a token cannot choose one (RFC 8725, 3.1).
type key struct {
	secret []byte
	public ed25519.PublicKey
}

func (k key) algorithm() string {
	if k.public != nil {
		return "EdDSA"
	}
	return "HS256"
}

// secretOf reads a secret as the gateway does.
func secretOf(text string) ([]byte, error) {
	if cut := strings.TrimSuffix(text, "\n"); cut != text {
		text = strings.TrimSuffix(cut, "\r")
	}
	secret := []byte(text)
	if strings.HasPrefix(text, "base64:") {
		var err error
		if secret, err = base64Of(strings.TrimPrefix(text, "base64:")); err != nil {
			return nil, errors.New("what follows base64: is not base64")
		}
	}
	if len(secret) < minSecret {
		return nil, fmt.Errorf("the secret has %d bytes; at least %d are needed", len(secret), minSecret)
	}
	return secret, nil
}

// base64Of decodes base64 of either alphabet, with or without padding.
func base64Of(text string) ([]byte, error) {
	if strings.ContainsAny(text, "\r\n") {
		return nil, errors.New("a line break")
	}
	bare := strings.TrimRight(text, "=")
	if padding := len(text) - len(bare); padding != 0 && len(text)%4 != 0 {
		return nil, errors.New("wrong padding")
	}
	if strings.ContainsAny(bare, "-_") {
		return base64.RawURLEncoding.Strict().DecodeString(bare)
	}
	return base64.RawStdEncoding.Strict().DecodeString(bare)
}

// publicKeyOf reads the x of an Ed25519 JWK.
func publicKeyOf(x string) (ed25519.PublicKey, error) {
	raw, ok := base64url(x)
	if !ok || len(raw) != ed25519.PublicKeySize {
		return nil, errors.New("the x of an Ed25519 JWK is 32 bytes in base64url")
	}
	return ed25519.PublicKey(raw), nil
}

// base64url decodes strictly: no padding, no line breaks, no trailing bits.
func base64url(text string) ([]byte, bool) {
	if strings.ContainsAny(text, "\r\n") {
		return nil, false
	}
	raw, err := base64.RawURLEncoding.Strict().DecodeString(text)
	return raw, err == nil
}

// A keyring finds keys by kid.
type keyring struct {
	fixed      map[string]key
	secretFunc func(context.Context, string) (string, error)
	publicFunc func(context.Context, string) (string, error)
}

func newKeyring(c *Config) (keyring, error) {
	ring := keyring{fixed: map[string]key{}, secretFunc: c.KeyFunc, publicFunc: c.PublicKeyFunc}
	for _, keys := range []map[string]string{c.Keys, c.PublicKeys} {
		for kid := range keys {
			if !isKid(kid) {
				return ring, fmt.Errorf("upstream: the kid %+q is not 1 to 64 of A-Z a-z 0-9 . _ -", kid)
			}
		}
	}
	for kid, text := range c.Keys {
		secret, err := secretOf(text)
		if err != nil {
			return ring, fmt.Errorf("upstream: Keys[%q]: %w", kid, err)
		}
		ring.fixed[kid] = key{secret: secret}
	}
	for kid, x := range c.PublicKeys {
		public, err := publicKeyOf(x)
		if err != nil {
			return ring, fmt.Errorf("upstream: PublicKeys[%q]: %w", kid, err)
		}
		if _, twice := ring.fixed[kid]; twice {
			return ring, fmt.Errorf("upstream: the kid %q is in both Keys and PublicKeys", kid)
		}
		ring.fixed[kid] = key{public: public}
	}
	if len(ring.fixed) == 0 && ring.secretFunc == nil && ring.publicFunc == nil {
		return ring, errors.New("upstream: give Keys, KeyFunc, PublicKeys or PublicKeyFunc")
	}
	return ring, nil
}

// isKid says whether a key can have this kid. What a stranger may have written
// goes to no function, and into no line of a log, before this.
func isKid(text string) bool {
	for i := 0; i < len(text); i++ {
		c := text[i]
		if !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.IndexByte("._-", c) >= 0) {
			return false
		}
	}
	return len(text) >= 1 && len(text) <= 64
}

func (ring *keyring) find(ctx context.Context, kid string) (key, *RefusedError) {
	if !isKid(kid) {
		return key{}, refused(ReasonUnknownKid, "its kid is none that a key can have: 1 to 64 of A-Z a-z 0-9 . _ -")
	}
	if k, ok := ring.fixed[kid]; ok {
		return k, nil
	}
	if ring.secretFunc != nil {
		text, err := ring.secretFunc(ctx, kid)
		if err != nil { // Its words may be anything, such as what the store answered.
			return key{}, refused(ReasonUnknownKid, "KeyFunc(%q) failed with a %T", kid, err)
		}
		if text != "" {
			secret, err := secretOf(text)
			if err != nil {
				return key{}, refused(ReasonUnknownKid, "KeyFunc(%q) gave no key: %v", kid, err)
			}
			return key{secret: secret}, nil
		}
	}
	if ring.publicFunc != nil {
		x, err := ring.publicFunc(ctx, kid)
		if err != nil {
			return key{}, refused(ReasonUnknownKid, "PublicKeyFunc(%q) failed with a %T", kid, err)
		}
		if x != "" {
			public, err := publicKeyOf(x)
			if err != nil {
				return key{}, refused(ReasonUnknownKid, "PublicKeyFunc(%q) gave no key: %v", kid, err)
			}
			return key{public: public}, nil
		}
	}
	return key{}, refused(ReasonUnknownKid, "no key has the kid %q", kid)
}

// shown quotes what a stranger may have written, for the log.
func shown(text string) string {
	if len(text) > 64 {
		return fmt.Sprintf("%+q...", text[:64])
	}
	return fmt.Sprintf("%+q", text)
}
