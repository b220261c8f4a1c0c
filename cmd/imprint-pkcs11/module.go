//go:build pkcs11 && cgo && !windows

package main

import (
	"crypto/x509"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"

	"github.com/miekg/pkcs11"

	"github.com/imprint-iot/imprint/pki/keys/wire"
)

// mostSessions bounds the signatures that a token makes side by side.
const mostSessions = 8

// module is the loaded library with the one token that it is used for.
type module struct {
	mu    sync.Mutex // guards what OpHello and OpLogin set
	ctx   *pkcs11.Ctx
	slot  uint
	token wire.Token
	flags uint
	pin   string // for keys that want it again for each signature

	sessions sessionPool

	keysMu sync.Mutex
	keys   map[string]*key // by label and id, as they were asked for
}

// key is a private key that was found.
type key struct {
	handle pkcs11.ObjectHandle
	item   wire.Item
	// always tells that the PIN is wanted for each signature.
	always bool
}

// refusal is an error with the code of an answer.
type refusal struct {
	code wire.Code
	text string
}

func (r *refusal) Error() string { return r.text }

func refuse(code wire.Code, format string, args ...any) error {
	return &refusal{code, fmt.Sprintf(format, args...)}
}

// do answers one request.
func (m *module) do(request *wire.Request) *wire.Response {
	answer := &wire.Response{}
	err := m.handle(request, answer)
	if err != nil {
		answer = &wire.Response{Code: codeOf(err), Message: cut(err.Error())}
	}
	answer.ID = request.ID
	return answer
}

func cut(text string) string {
	const most = 1 << 10
	return text[:min(len(text), most)]
}

func (m *module) handle(request *wire.Request, answer *wire.Response) error {
	if request.Op == wire.OpHello {
		return m.hello(request, answer)
	}
	m.mu.Lock()
	ready := m.ctx != nil
	m.mu.Unlock()
	if !ready {
		return refuse(wire.Protocol, "no module is loaded yet")
	}
	switch request.Op {
	case wire.OpLogin:
		return m.login(request.PIN)
	case wire.OpFind:
		found, err := m.find(request.Label, request.KeyID)
		if err != nil {
			return err
		}
		answer.Items = []wire.Item{found.item}
		return nil
	case wire.OpSign:
		return m.sign(request, answer)
	case wire.OpGenerate:
		return m.generate(request, answer)
	case wire.OpList:
		return m.list(request, answer)
	}
	return refuse(wire.Protocol, "there is no request %d", request.Op)
}

// hello loads the module and finds the token.
func (m *module) hello(request *wire.Request, answer *wire.Response) error {
	if request.Version != wire.Version {
		return refuse(wire.Protocol, "imprint-pkcs11 speaks version %d and Imprint version %d: build both from one source", wire.Version, request.Version)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.ctx != nil {
		return refuse(wire.Protocol, "the module is loaded already")
	}
	ctx := pkcs11.New(request.Module)
	if ctx == nil {
		return refuse(wire.Device, "%s can't be loaded as a PKCS#11 module: it isn't there, isn't one, or lacks a library that it needs", request.Module)
	}
	err := ctx.Initialize()
	if err != nil {
		return fmt.Errorf("the module can't be initialised: %w", err)
	}
	err = m.pick(ctx, request.Token)
	if err != nil {
		return err
	}
	// This one stays open: a login lasts as long as there is a session.
	first, err := ctx.OpenSession(m.slot, pkcs11.CKF_SERIAL_SESSION)
	if err != nil {
		return fmt.Errorf("no session can be opened: %w", err)
	}
	m.ctx = ctx
	m.keys = map[string]*key{}
	m.sessions.init(ctx, m.slot, first)
	answer.Token = m.token
	answer.LoginRequired = m.flags&pkcs11.CKF_LOGIN_REQUIRED != 0
	answer.LastTry = m.flags&pkcs11.CKF_USER_PIN_FINAL_TRY != 0
	return nil
}

// pick finds the one token that fits.
func (m *module) pick(ctx *pkcs11.Ctx, wanted wire.Token) error {
	slots, err := ctx.GetSlotList(true)
	if err != nil {
		return fmt.Errorf("the slots can't be listed: %w", err)
	}
	var fitting, all []string
	for _, slot := range slots {
		info, err := ctx.GetTokenInfo(slot)
		if err != nil {
			// A slot may have something in it that isn't a token.
			all = append(all, fmt.Sprintf("slot %d: %v", slot, err))
			continue
		}
		token := wire.Token{
			Label: trim(info.Label), Manufacturer: trim(info.ManufacturerID), Model: trim(info.Model), Serial: trim(info.SerialNumber),
			Slot: strconv.FormatUint(uint64(slot), 10),
		}
		name := fmt.Sprintf("token=%q serial=%q", token.Label, token.Serial)
		if info.Flags&pkcs11.CKF_TOKEN_INITIALIZED == 0 {
			all = append(all, name+" (not initialised)")
			continue
		}
		all = append(all, name)
		if fits(wanted, token) {
			fitting = append(fitting, name)
			m.slot, m.token, m.flags = slot, token, info.Flags
		}
	}
	switch {
	case len(fitting) > 1:
		return refuse(wire.Ambiguous, "%d tokens fit: %s", len(fitting), strings.Join(fitting, ", "))
	case len(fitting) == 1:
		return nil
	case len(all) == 0:
		return refuse(wire.NoToken, "the module has no token at all")
	}
	return refuse(wire.NoToken, "the module has %s", strings.Join(all, ", "))
}

// trim takes the padding of PKCS#11's texts away.
func trim(text string) string { return strings.TrimRight(text, " \x00") }

func fits(wanted, token wire.Token) bool {
	for _, pair := range [][2]string{
		{wanted.Label, token.Label}, {wanted.Manufacturer, token.Manufacturer}, {wanted.Model, token.Model}, {wanted.Serial, token.Serial}, {wanted.Slot, token.Slot},
	} {
		if pair[0] != "" && pair[0] != pair[1] {
			return false
		}
	}
	return true
}

func (m *module) login(pin []byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	session, err := m.sessions.take()
	if err != nil {
		return err
	}
	defer m.sessions.give(session)
	text := string(pin)
	clear(pin)
	err = m.ctx.Login(session, pkcs11.CKU_USER, text)
	if err != nil && !is(err, pkcs11.CKR_USER_ALREADY_LOGGED_IN) {
		return fmt.Errorf("the login failed: %w", err)
	}
	m.pin = text
	return nil
}

func is(err error, code uint) bool {
	var ckr pkcs11.Error
	return errors.As(err, &ckr) && uint(ckr) == code
}

// codeOf sorts what a module says. What isn't known counts as a failure of the device,
// because then a new process is tried.
func codeOf(err error) wire.Code {
	var own *refusal
	if errors.As(err, &own) {
		return own.code
	}
	var ckr pkcs11.Error
	if !errors.As(err, &ckr) {
		return wire.Device
	}
	switch uint(ckr) {
	case pkcs11.CKR_PIN_INCORRECT, pkcs11.CKR_PIN_INVALID, pkcs11.CKR_PIN_LEN_RANGE, pkcs11.CKR_PIN_EXPIRED, pkcs11.CKR_PIN_LOCKED, pkcs11.CKR_USER_PIN_NOT_INITIALIZED:
		return wire.PIN
	case pkcs11.CKR_KEY_FUNCTION_NOT_PERMITTED, pkcs11.CKR_KEY_TYPE_INCONSISTENT, pkcs11.CKR_KEY_SIZE_RANGE, pkcs11.CKR_KEY_INDIGESTIBLE,
		pkcs11.CKR_MECHANISM_INVALID, pkcs11.CKR_MECHANISM_PARAM_INVALID, pkcs11.CKR_FUNCTION_NOT_SUPPORTED, pkcs11.CKR_DATA_INVALID, pkcs11.CKR_DATA_LEN_RANGE,
		pkcs11.CKR_ATTRIBUTE_READ_ONLY, pkcs11.CKR_ATTRIBUTE_TYPE_INVALID, pkcs11.CKR_ATTRIBUTE_VALUE_INVALID, pkcs11.CKR_TEMPLATE_INCOMPLETE, pkcs11.CKR_TEMPLATE_INCONSISTENT,
		pkcs11.CKR_DOMAIN_PARAMS_INVALID, pkcs11.CKR_CURVE_NOT_SUPPORTED, pkcs11.CKR_TOKEN_WRITE_PROTECTED, pkcs11.CKR_SESSION_READ_ONLY, pkcs11.CKR_DEVICE_MEMORY, pkcs11.CKR_ACTION_PROHIBITED:
		return wire.Refused
	}
	return wire.Device
}

// sessionPool lends sessions: PKCS#11 allows one signature at a time in each.
type sessionPool struct {
	ctx  *pkcs11.Ctx
	slot uint

	mu   sync.Mutex
	more *sync.Cond
	free []pkcs11.SessionHandle
	made int
	most int
}

func (p *sessionPool) init(ctx *pkcs11.Ctx, slot uint, first pkcs11.SessionHandle) {
	p.ctx, p.slot, p.free, p.made, p.most = ctx, slot, []pkcs11.SessionHandle{first}, 1, mostSessions
	p.more = sync.NewCond(&p.mu)
}

func (p *sessionPool) take() (pkcs11.SessionHandle, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for {
		if n := len(p.free); n > 0 {
			session := p.free[n-1]
			p.free = p.free[:n-1]
			return session, nil
		}
		if p.made < p.most {
			p.made++
			p.mu.Unlock()
			session, err := p.ctx.OpenSession(p.slot, pkcs11.CKF_SERIAL_SESSION)
			p.mu.Lock()
			if err == nil {
				return session, nil
			}
			p.made--
			if !is(err, pkcs11.CKR_SESSION_COUNT) {
				return 0, fmt.Errorf("no session can be opened: %w", err)
			}
			// The token has fewer.
			p.most = max(p.made, 1)
			continue
		}
		p.more.Wait()
	}
}

func (p *sessionPool) give(session pkcs11.SessionHandle) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.free = append(p.free, session)
	p.more.Signal()
}

// within runs f with a session.
func (m *module) within(f func(session pkcs11.SessionHandle) error) error {
	session, err := m.sessions.take()
	if err != nil {
		return err
	}
	defer m.sessions.give(session)
	return f(session)
}

// public gives a key in SubjectPublicKeyInfo.
func encodePublic(public any) ([]byte, error) {
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		return nil, fmt.Errorf("its public key can't be encoded: %w", err)
	}
	return der, nil
}
