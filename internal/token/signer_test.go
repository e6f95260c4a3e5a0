package token

import (
	"bytes"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"hash"
	"slices"
	"strings"
	"testing"
	"time"

	"spacehost/internal/identity"
)

var (
	ourKey   = bytes.Repeat([]byte{7}, keySize)
	otherKey = bytes.Repeat([]byte{8}, keySize)
	noon     = time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)
)

// signerAt returns a Signer with two keys, "ours" and "spare", and a stopped clock.
func signerAt(now time.Time) *Signer {
	s := newSigner(map[string][]byte{"ours": ourKey, "spare": otherKey})
	s.Now = func() time.Time { return now }
	return s
}

func sign(t testing.TB, s *Signer, c Claims) string {
	t.Helper()
	token, err := s.Sign(c)
	if err != nil {
		t.Fatalf("Sign(%+v): %v", c, err)
	}
	return token
}

var ada = Claims{Aud: "demo", Sub: "user:ada", Tier: "pro", ID: "event-1"}

func wantReason(t *testing.T, err error, want Reason) {
	t.Helper()
	var refused *Error
	if !errors.As(err, &refused) || refused.Reason != want {
		t.Errorf("got %v, want %q", err, want)
	}
}

func TestTokenRoundTrip(t *testing.T) {
	s := signerAt(noon)
	full := Claims{Aud: "ada/demo", Sub: "ip:2001:db8:1:2::/64", Tier: "unauthenticated", ID: "event-1", Session: "0a1b",
		IssuedAt: noon.Add(-time.Hour), ExpiresAt: noon.Add(time.Hour), Act: "eve/front", Error: "token of ☃ <ada> is over?"}
	got, err := s.Parse(sign(t, s, full))
	full.Iss = Issuer
	if err != nil || got != full {
		t.Errorf("got %+v (%v)\nwant %+v", got, err, full)
	}
	id, err := got.Identity()
	if want := (identity.Identity{Kind: identity.Address, Name: "2001:db8:1:2::/64", Tier: "unauthenticated", Via: "eve/front"}); err != nil || id != want {
		t.Errorf("identity: got %+v (%v), want %+v", id, err, want)
	}
}

func TestTokenIsValidFor24Hours(t *testing.T) {
	token := sign(t, signerAt(noon), ada)
	for _, row := range []struct {
		at   time.Duration
		want Reason
	}{
		{-leeway, ""},
		{-leeway - time.Second, NotYet},
		{0, ""},
		{Lifetime, ""},
		{Lifetime + leeway - time.Millisecond, ""},
		{Lifetime + leeway, Expired},
		{1000 * Lifetime, Expired},
	} {
		_, err := signerAt(noon.Add(row.at)).Parse(token)
		if row.want == "" && err != nil {
			t.Errorf("after %v: %v", row.at, err)
		} else if row.want != "" {
			wantReason(t, err, row.want)
		}
	}
}

func TestVerifyForChecksSpace(t *testing.T) {
	s := signerAt(noon)
	token := sign(t, s, ada)
	if c, err := s.VerifyFor(token, "demo"); err != nil || c.ID != "event-1" {
		t.Errorf("demo: got %+v (%v)", c, err)
	}
	for _, space := range []string{"", "Demo", "demo2", "dem"} {
		_, err := s.VerifyFor(token, space)
		wantReason(t, err, WrongAudience)
	}
	_, err := s.VerifyFor("x", "demo")
	wantReason(t, err, Malformed)
}

// The spaces package appends "==" to the payload, decodes base64 and then JSON, and reads only "error".
func TestPayloadIsPlainJSON(t *testing.T) {
	for _, fault := range []string{"", "sign in ÿ? >~"} {
		c := ada
		c.Error = fault
		segment := strings.Split(sign(t, signerAt(noon), c), ".")[1]
		raw, err := base64.RawURLEncoding.DecodeString(segment)
		if err != nil {
			t.Fatal(err)
		}
		got := map[string]any{}
		if err := json.Unmarshal(raw, &got); err != nil {
			t.Fatal(err)
		}
		want := map[string]any{"iss": "spacehost", "aud": "demo", "sub": "user:ada", "tier": "pro", "jti": "event-1",
			"iat": float64(noon.Unix()), "exp": float64(noon.Add(Lifetime).Unix())}
		if fault != "" {
			want["error"] = fault
		}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("got %v\nwant %v", got, want)
		}
	}
}

func TestSignRefusesWhatParseWouldRefuse(t *testing.T) {
	for name, spoil := range map[string]func(c *Claims){
		"no audience": func(c *Claims) { c.Aud = "" },
		"no subject":  func(c *Claims) { c.Sub = "" },
		"bad subject": func(c *Claims) { c.Sub = "ada" },
		"too long":    func(c *Claims) { c.Error = strings.Repeat("x", maxToken) },
	} {
		c := ada
		spoil(&c)
		if token, err := signerAt(noon).Sign(c); err == nil {
			t.Errorf("%s: got a token of %d bytes, want an error", name, len(token))
		}
	}
}

func TestErrorsDoNotContainToken(t *testing.T) {
	token := sign(t, signerAt(noon), ada)
	_, err := signerAt(noon.Add(48 * time.Hour)).Parse(token)
	for _, part := range strings.Split(token, ".") {
		if strings.Contains(err.Error(), part) {
			t.Errorf("%q contains a part of the token", err)
		}
	}
}

const (
	goodHeader  = `{"alg":"HS256","kid":"ours","typ":"JWT"}`
	goodPayload = `{"iss":"spacehost","aud":"demo","sub":"user:ada","tier":"pro","jti":"event-1","iat":1795176000,"exp":1795262400}`
)

// forge returns a token of any header and payload with an HMAC over them.
func forge(header, payload string, key []byte, h func() hash.Hash) string {
	text := b64(header) + "." + b64(payload)
	mac := hmac.New(h, key)
	mac.Write([]byte(text))
	return text + "." + b64(string(mac.Sum(nil)))
}

func b64(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) }

func withHeader(header string) string { return forge(header, goodPayload, ourKey, sha256.New) }

func withPayload(payload string) string { return forge(goodHeader, payload, ourKey, sha256.New) }

func without(claim string) string {
	var claims map[string]any
	if err := json.Unmarshal([]byte(goodPayload), &claims); err != nil {
		panic(err)
	}
	delete(claims, claim)
	rest, err := json.Marshal(claims)
	if err != nil {
		panic(err)
	}
	return withPayload(string(rest))
}

func with(claim, value string) string {
	return strings.TrimSuffix(goodPayload, "}") + `,"` + claim + `":` + value + "}"
}

// publicPEM is the public key that a host with an RSA key would publish. Here it is used only for an attack.
func publicPEM(t *testing.T) []byte {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: x509.MarshalPKCS1PublicKey(&key.PublicKey)})
}

// attack is a token that Parse must refuse.
type attack struct {
	name, token string
	want        Reason
}

func TestAttacks(t *testing.T) {
	good := forge(goodHeader, goodPayload, ourKey, sha256.New)
	if _, err := signerAt(noon).Parse(good); err != nil {
		t.Fatalf("the valid token from which all others are derived: %v", err)
	}
	if _, err := signerAt(noon).Parse(forge(`{"alg":"HS256","kid":"spare"}`, goodPayload, otherKey, sha256.New)); err != nil {
		t.Fatalf("another key of the Signer: %v", err)
	}
	for _, row := range slices.Concat(malformedTokens(good), wronglySignedTokens(t, good), foreignKeyTokens(), foreignHeaders(), badClaims()) {
		t.Run(row.name, func(t *testing.T) {
			c, err := signerAt(noon).Parse(row.token)
			wantReason(t, err, row.want)
			if c != (Claims{}) {
				t.Errorf("a refused token returned %+v", c)
			}
		})
	}
}

// malformedTokens have an invalid form.
func malformedTokens(good string) []attack {
	parts := strings.Split(good, ".")
	return []attack{
		{"nothing", "", Malformed},
		{"one word", "token", Malformed},
		{"dots alone", "..", Malformed},
		{"two parts", parts[0] + "." + parts[1], Malformed},
		{"four parts", good + ".x", Malformed},
		{"five parts, as JWE", good + "." + good, Malformed},
		{"doubled dot", parts[0] + ".." + parts[1] + "." + parts[2], Malformed},
		{"leading dot", "." + good, Malformed},
		{"trailing dot", good + ".", Malformed},
		{"a thousand dots", strings.Repeat(".", 1000), Malformed},
		{"leading space", " " + good, Malformed},
		{"Bearer", "Bearer " + good, Malformed},
		{"line end after the signature", good + "\n", Malformed},
		{"line end within the signature", good[:len(good)-3] + "\r\n" + good[len(good)-3:], Malformed},
		{"padding", good + "=", Malformed},
		{"standard base64", strings.NewReplacer("-", "+", "_", "/").Replace(parts[0] + "." + parts[1] + ".++//" + parts[2]), Malformed},
		{"spare bits in the signature", good[:len(good)-1] + nextLetter(good[len(good)-1]), Malformed},
		{"NUL", good + "\x00", Malformed},
		{"header is no JSON", b64("{") + "." + parts[1] + "." + parts[2], Malformed},
		{"header is an array", withHeader(`["HS256"]`), Malformed},
		{"header null", withHeader(`null`), BadSignature},
		{"payload is no JSON", withPayload("{"), Malformed},
		{"payload is an array", withPayload("[]"), Malformed},
		{"payload null", withPayload("null"), BadClaims},
		{"two audiences", withPayload(with("aud", `["demo","other"]`)), Malformed},
		{"expiry as text", withPayload(with("exp", `"never"`)), Malformed},
		{"expiry beyond numbers", withPayload(with("exp", `1e999`)), Malformed},
		{"too long", withPayload(with("error", `"`+strings.Repeat("x", maxToken)+`"`)), TooLong},
		{"megabytes of noise", strings.Repeat("x", 4<<20), TooLong},
	}
}

// wronglySignedTokens have an unexpected algorithm or a wrong signature.
func wronglySignedTokens(t *testing.T, good string) []attack {
	parts := strings.Split(good, ".")
	public := publicPEM(t)
	return []attack{
		{"alg none, unsigned", b64(`{"alg":"none","kid":"ours"}`) + "." + parts[1] + ".", BadSignature},
		{"alg none, signed", withHeader(`{"alg":"none","kid":"ours"}`), BadSignature},
		{"alg None", b64(`{"alg":"None","kid":"ours"}`) + "." + parts[1] + ".", BadSignature},
		{"alg nOnE", b64(`{"alg":"nOnE","kid":"ours"}`) + "." + parts[1] + ".", BadSignature},
		{"alg hs256", withHeader(`{"alg":"hs256","kid":"ours"}`), BadSignature},
		{"alg empty", withHeader(`{"alg":"","kid":"ours"}`), BadSignature},
		{"alg missing", withHeader(`{"kid":"ours"}`), BadSignature},
		{"alg a number", withHeader(`{"alg":256,"kid":"ours"}`), BadSignature},
		{"HS384 with our key", forge(`{"alg":"HS384","kid":"ours"}`, goodPayload, ourKey, sha512.New384), BadSignature},
		{"HS512 with our key", forge(`{"alg":"HS512","kid":"ours"}`, goodPayload, ourKey, sha512.New), BadSignature},
		{"RS256 with our key as HMAC", withHeader(`{"alg":"RS256","kid":"ours"}`), BadSignature},
		{"ES256 with a zero signature", b64(`{"alg":"ES256","kid":"ours"}`) + "." + parts[1] + "." + b64(strings.Repeat("\x00", 64)), BadSignature},
		{"EdDSA", withHeader(`{"alg":"EdDSA","kid":"ours"}`), BadSignature},
		{"HS256 keyed with a public key", forge(goodHeader, goodPayload, public, sha256.New), BadSignature},
		{"HS256 keyed with nothing", forge(goodHeader, goodPayload, nil, sha256.New), BadSignature},
		{"HS256 keyed with zeros", forge(goodHeader, goodPayload, make([]byte, keySize), sha256.New), BadSignature},
		{"signature empty", parts[0] + "." + parts[1] + ".", BadSignature},
		{"signature cut", good[:len(good)-8], BadSignature},
		{"signature of another of our tokens", parts[0] + "." + parts[1] + "." + strings.Split(without("error"), ".")[2], BadSignature},
		{"payload altered", parts[0] + "." + b64(with("tier", `"unlimited"`)) + "." + parts[2], BadSignature},
		{"payload swapped with the header", parts[1] + "." + parts[0] + "." + parts[2], BadSignature},
		{"the other key under our kid", forge(goodHeader, goodPayload, otherKey, sha256.New), BadSignature},
	}
}

// foreignKeyTokens name a key that the Signer does not have.
func foreignKeyTokens() []attack {
	return []attack{
		{"foreign kid", forge(`{"alg":"HS256","kid":"theirs"}`, goodPayload, otherKey, sha256.New), ForeignKey},
		{"no kid", withHeader(`{"alg":"HS256"}`), ForeignKey},
		{"kid empty", forge(`{"alg":"HS256","kid":""}`, goodPayload, nil, sha256.New), ForeignKey},
		{"kid null", withHeader(`{"alg":"HS256","kid":null}`), ForeignKey},
		{"kid a number", withHeader(`{"alg":"HS256","kid":0}`), ForeignKey},
		{"kid an array", withHeader(`{"alg":"HS256","kid":["ours"]}`), ForeignKey},
		{"kid up to /dev/null", forge(`{"alg":"HS256","kid":"../../../../dev/null"}`, goodPayload, nil, sha256.New), ForeignKey},
		{"kid by another path", withHeader(`{"alg":"HS256","kid":"./ours"}`), ForeignKey},
		{"kid with a NUL", withHeader(`{"alg":"HS256","kid":"ours\u0000.key"}`), ForeignKey},
		{"kid as SQL", withHeader(`{"alg":"HS256","kid":"x' UNION SELECT 'ours"}`), ForeignKey},
	}
}

// foreignHeaders have header fields that refer to another key or change the format.
func foreignHeaders() []attack {
	return []attack{
		{"jwk", forge(`{"alg":"HS256","kid":"ours","jwk":{"kty":"oct","k":"CAgI"}}`, goodPayload, otherKey, sha256.New), Malformed},
		{"jku", withHeader(`{"alg":"HS256","kid":"ours","jku":"http://evil.example/keys"}`), Malformed},
		{"x5u", withHeader(`{"alg":"HS256","kid":"ours","x5u":"http://evil.example/cert"}`), Malformed},
		{"x5c", withHeader(`{"alg":"HS256","kid":"ours","x5c":["MIIB"]}`), Malformed},
		{"crit", withHeader(`{"alg":"HS256","kid":"ours","crit":["exp"]}`), Malformed},
		{"b64", withHeader(`{"alg":"HS256","kid":"ours","b64":false}`), Malformed},
	}
}

// badClaims are signed correctly, with invalid claims.
func badClaims() []attack {
	return []attack{
		{"wrong issuer", withPayload(with("iss", `"huggingface"`)), WrongIssuer},
		{"no issuer", without("iss"), BadClaims},
		{"no audience", without("aud"), BadClaims},
		{"audience empty", withPayload(with("aud", `""`)), BadClaims},
		{"no subject", without("sub"), BadClaims},
		{"subject forged for the log", withPayload(with("sub", `"user:a\nidentity=root"`)), BadClaims},
		{"no expiry", without("exp"), BadClaims},
		{"expiry null", withPayload(with("exp", "null")), BadClaims},
		{"no time of issue", without("iat"), BadClaims},
		{"expired", withPayload(with("exp", "1795175000")), Expired},
		{"expired in 1970", withPayload(with("exp", "0")), Expired},
		{"expiry negative", withPayload(with("exp", "-1")), Expired},
		{"issued tomorrow", withPayload(with("iat", "1795262300")), NotYet},
	}
}

// nextLetter returns the letter that differs from c in its last bit, which a signature of 32 bytes does not use.
func nextLetter(c byte) string {
	const letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	return string(letters[strings.IndexByte(letters, c)^1])
}

// For any input, a token is accepted only if it equals a signed token byte for byte.
func FuzzParse(f *testing.F) {
	s := signerAt(noon)
	good := forge(goodHeader, goodPayload, ourKey, sha256.New)
	for _, seed := range []string{good, good + "\n", good + ".", "..", "", without("aud"), withHeader(`{"alg":"none"}`),
		forge(`{"alg":"HS256","kid":"theirs"}`, goodPayload, otherKey, sha256.New)} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, token string) {
		c, err := s.Parse(token)
		if err == nil && token != good {
			t.Errorf("Parse(%q): got %+v", token, c)
		}
		var refused *Error
		if err != nil && !errors.As(err, &refused) {
			t.Errorf("Parse(%q): got %T, want an Error", token, err)
		}
	})
}
