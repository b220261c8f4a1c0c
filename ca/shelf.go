package ca

import (
	"bytes"
	"container/list"
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"sync"
	"time"

	"github.com/imprint-iot/imprint"
)

// maxListBytes bounds the CRLs in memory: those that are kept for the next request, and
// those that are being sent, however slowly. One that is larger on its own is sent alone.
const maxListBytes = 128 << 20

// shelf holds CRLs for the door: each version once, for all requests together.
type shelf struct {
	mu    sync.Mutex
	held  map[listPlace]*heldList // the latest version that was asked for
	order list.List               // of *heldList, the one used last first; those in held alone
	bytes int64                   // of all versions in memory
}

type listPlace struct {
	tenant imprint.Tenant
	id     imprint.AuthorityID
	shard  int
}

// listVersion is what a list is known by before it is read.
type listVersion struct {
	number     int64
	thisUpdate time.Time
	size       int64
}

// tag is the ETag of a version: a number alone comes again with another list when a registry
// was restored from a backup.
func (v listVersion) tag() string {
	return `"` + strconv.FormatInt(v.number, 10) + "-" + strconv.FormatInt(v.thisUpdate.UnixMilli(), 36) + `"`
}

// heldList is one version. Der and err are read when ready is closed.
type heldList struct {
	at      listPlace
	version listVersion
	ready   chan struct{}
	der     []byte
	err     error
	users   int
	element *list.Element // nil: another version has its place
}

// listVersion reads which version of a list there is. Errors: those of List.
func (e *Engine) listVersion(ctx context.Context, at listPlace) (listVersion, error) {
	var l imprint.RevocationList
	var size int64
	err := e.opts.Store.View(ctx, func(tx imprint.ReadTx) error {
		var err error
		l, size, err = tx.RevocationListSize(at.tenant, at.id, at.shard)
		return err
	})
	switch {
	case err != nil:
	case l.Retired:
		err = unpublished(at.id, at.shard)
	case size == 0:
		err = unsigned(at.id, at.shard)
	}
	if err != nil {
		return listVersion{}, fmt.Errorf("couldn't give a revocation list: %w", err)
	}
	return listVersion{l.Number, l.ThisUpdate, size}, nil
}

// take gives a version's content until release is called. Read gives it when it isn't in
// memory. Errors: CodeThrottled when others take all the room, that of read.
func (s *shelf) take(ctx context.Context, at listPlace, v listVersion, read func() ([]byte, error)) (content io.ReadSeeker, release func(), err error) {
	s.mu.Lock()
	one := s.held[at]
	if one != nil && one.version == v {
		one.users++
		s.order.MoveToFront(one.element)
		s.mu.Unlock()
		select {
		case <-one.ready:
		case <-ctx.Done():
			s.release(one)
			return nil, nil, ctx.Err()
		}
		return s.content(one)
	}
	if one != nil {
		s.drop(one)
	}
	for s.bytes+v.size > maxListBytes && s.evict() {
		continue
	}
	if s.bytes+v.size > maxListBytes && s.bytes > 0 {
		s.mu.Unlock()
		return nil, nil, imprint.Errorf(imprint.CodeThrottled, "revocation lists of %d bytes are being sent, as many as allowed", maxListBytes)
	}
	one = &heldList{at: at, version: v, ready: make(chan struct{}), users: 1, err: errors.New("the revocation list wasn't read")}
	one.element = s.order.PushFront(one)
	if s.held == nil {
		s.held = map[listPlace]*heldList{}
	}
	s.held[at] = one
	s.bytes += v.size
	s.mu.Unlock()
	defer close(one.ready)
	one.der, one.err = read()
	if one.err == nil && int64(len(one.der)) != v.size {
		// A new version came between; who asks again gets that.
		one.err = imprint.Errorf(imprint.CodeUnavailable, "the revocation list was just signed anew")
	}
	return s.content(one)
}

func (s *shelf) content(one *heldList) (io.ReadSeeker, func(), error) {
	if one.err != nil {
		s.mu.Lock()
		s.drop(one)
		s.mu.Unlock()
		s.release(one)
		return nil, nil, one.err
	}
	return bytes.NewReader(one.der), func() { s.release(one) }, nil
}

// drop gives a version's place to another one; it stays in memory while it is sent.
func (s *shelf) drop(one *heldList) {
	if one.element == nil {
		return
	}
	s.order.Remove(one.element)
	one.element = nil
	delete(s.held, one.at)
	if one.users == 0 {
		s.bytes -= one.version.size
	}
}

// evict drops the version that nobody has used for longest; false: all are being sent.
func (s *shelf) evict() bool {
	for element := s.order.Back(); element != nil; element = element.Prev() {
		one := element.Value.(*heldList)
		if one.users == 0 {
			s.drop(one)
			return true
		}
	}
	return false
}

func (s *shelf) release(one *heldList) {
	s.mu.Lock()
	defer s.mu.Unlock()
	one.users--
	if one.users == 0 && one.element == nil {
		s.bytes -= one.version.size
	}
}

// sizeAlone is content for answers without it: http.ServeContent asks for the size alone.
type sizeAlone struct{ size, at int64 }

func (s *sizeAlone) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekEnd:
		offset += s.size
	case io.SeekCurrent:
		offset += s.at
	}
	s.at = offset
	return offset, nil
}

func (s *sizeAlone) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }
