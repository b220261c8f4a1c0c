package functions

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/imprint-iot/imprint"
)

// Invoke implements imprint.Functions.
func (s *Service) Invoke(ctx context.Context, call imprint.FunctionCall) (imprint.FunctionResult, error) {
	found, err := s.find(ctx, call)
	if err == nil {
		err = checkPayload(call.Payload, maxPayload)
	}
	give := func() {}
	if err == nil {
		give, err = s.room.take(call)
	}
	if err != nil {
		if imprint.CodeOf(err) == imprint.CodeFunctionThrottled {
			s.throttles.Add(1)
		}
		s.tell(call, imprint.FunctionResult{}, err)
		return imprint.FunctionResult{}, err
	}
	defer give()
	return s.run(ctx, call, found)
}

// Check says whether Invoke would run a function. Errors: CodeFunctionMissing,
// CodeFunctionDenied, CodeInvalidRequest.
func (s *Service) Check(ctx context.Context, call imprint.FunctionCall) error {
	_, err := s.find(ctx, call)
	if err != nil {
		return err
	}
	return checkPayload(call.Payload, maxPayload)
}

func (s *Service) find(ctx context.Context, call imprint.FunctionCall) (target, error) {
	var found target
	err := s.store.Glance(ctx, func(tx imprint.ReadTx) error {
		t, err := s.resolveCall(tx, call)
		found = t
		return err
	})
	if imprint.CodeOf(err) == imprint.CodeFunctionDenied {
		s.denied.Add(1)
	}
	return found, err
}

// checkPayload refuses what isn't an event. An empty one is null.
func checkPayload(payload []byte, limit int) error {
	if len(payload) > limit {
		return imprint.Errorf(imprint.CodePacketTooLarge, "%d byte payload is too large for the Invoke operation (limit %d bytes)", len(payload), limit)
	}
	if len(payload) > 0 && !json.Valid(payload) {
		return imprint.Errorf(imprint.CodeInvalidRequest, "Could not parse request body into json")
	}
	return nil
}

// run runs a function that was found, and counts and tells what became of it.
func (s *Service) run(ctx context.Context, call imprint.FunctionCall, found target) (imprint.FunctionResult, error) {
	begun, caller := time.Now(), ctx
	if call.Timeout > 0 {
		bounded, cancel := context.WithTimeout(ctx, call.Timeout)
		defer cancel()
		ctx = bounded
	}
	if len(bytes.TrimSpace(call.Payload)) == 0 {
		call.Payload = []byte("null")
	}
	var result imprint.FunctionResult
	var err error
	switch runtimeKind(found.function.Runtime) {
	case RuntimeWebhook:
		result, err = s.elsewhere(ctx, call, found, s.postWebhook)
	case RuntimeRemote:
		result, err = s.elsewhere(ctx, call, found, s.invokeRemote)
	default:
		result, err = s.inProcess(ctx, call, found)
	}
	if call.Timeout > 0 && imprint.CodeOf(err) == imprint.CodeFunctionTimeout && ctx.Err() != nil {
		err = &imprint.Error{Code: imprint.CodeFunctionTimeout, Err: err,
			Hint: fmt.Sprintf("The caller waits for %s, with the start of a process: make the function quicker, or keep a process warm.", call.Timeout)}
	}
	result.Duration = time.Since(begun)
	result.Version = found.function.Version
	s.count(result, err)
	if err != nil && errors.Is(caller.Err(), context.Canceled) {
		// Whatever the run says of it, the function isn't to blame.
		s.add(call, result, imprint.Step{Verdict: imprint.VerdictInfo,
			Detail: fmt.Sprintf("%s: its caller left after %s, before it answered", call.ARN, result.Duration.Round(time.Millisecond))})
		return result, err
	}
	s.tell(call, result, err)
	return result, err
}

func (s *Service) count(result imprint.FunctionResult, err error) {
	s.invocations.Add(1)
	s.duration.Add(int64(result.Duration))
	if result.Cold {
		s.coldStarts.Add(1)
	}
	switch imprint.CodeOf(err) {
	case "":
	case imprint.CodeFunctionTimeout:
		s.timeouts.Add(1)
	case imprint.CodeFunctionThrottled:
		s.throttles.Add(1)
	default:
		s.failed.Add(1)
	}
}

// tell writes log and duration of a run into its attempt.
func (s *Service) tell(call imprint.FunctionCall, result imprint.FunctionResult, err error) {
	if err != nil {
		s.add(call, result, imprint.Step{Verdict: imprint.VerdictFailed, Code: imprint.CodeOf(err), Detail: call.ARN + ": " + err.Error(), Fix: imprint.HintOf(err)})
		return
	}
	start := ""
	if result.Cold {
		start = ", with the start of a process"
	}
	s.add(call, result, imprint.Step{Verdict: imprint.VerdictOK,
		Detail: fmt.Sprintf("%s answered in %s%s", call.ARN, result.Duration.Round(10*time.Microsecond), start)})
}

// add adds a run, with its log, to its attempt.
func (s *Service) add(call imprint.FunctionCall, result imprint.FunctionResult, step imprint.Step) {
	if call.AttemptID == "" || s.opts.Attempts == nil {
		return
	}
	step.At, step.Name = s.clock(), "function"
	steps := []imprint.Step{step}
	if log := strings.TrimSpace(result.Log); log != "" {
		steps = append(steps, imprint.Step{At: step.At, Name: "function.log", Verdict: imprint.VerdictInfo, Detail: log})
	}
	s.opts.Attempts.Append(call.AttemptID, steps...)
}

// maxStarts is how many processes one call may see end before it runs.
const maxStarts = 3

// inProcess runs a function in a process of this machine.
func (s *Service) inProcess(ctx context.Context, call imprint.FunctionCall, found target) (imprint.FunctionResult, error) {
	err := s.admit(found.function) // a queued call may be older than the server's settings
	if err != nil {
		return imprint.FunctionResult{}, err
	}
	in := &invocation{
		id: newRequestID(), arn: found.arn(), payload: call.Payload, traceID: traceID(s.clock()), done: make(chan struct{}),
	}
	for range maxStarts {
		g, err := s.host.acquire(ctx, found)
		if err != nil {
			return imprint.FunctionResult{}, err
		}
		if g.failed != nil {
			return s.judge(found, *g.failed, true)
		}
		if !g.process.invoke(in, found.function.Timeout) {
			continue // it ended between two runs
		}
		select {
		case <-in.done:
			return s.judge(found, in.outcome, g.cold)
		case <-ctx.Done():
		}
		// The run goes on, as at AWS Lambda, and its answer is lost.
		return imprint.FunctionResult{Cold: g.cold}, imprint.Errorf(imprint.CodeFunctionTimeout,
			"function %s didn't answer within the %s that its caller waits", found.function.Name, waited(call))
	}
	return imprint.FunctionResult{}, imprint.Errorf(imprint.CodeFunctionFailed, "%d processes of function %s ended before they were given the event", maxStarts, found.function.Name)
}

func waited(call imprint.FunctionCall) string {
	if call.Timeout > 0 {
		return call.Timeout.String()
	}
	return "time"
}

// traceID is the header of X-Ray, which samples nothing here.
func traceID(now time.Time) string {
	id := uuid.New()
	return fmt.Sprintf("Root=1-%08x-%x;Parent=%x;Sampled=0", uint32(now.Unix()), id[:12], id[8:16])
}

// judge turns the outcome of a run into result and error.
func (s *Service) judge(found target, out outcome, cold bool) (imprint.FunctionResult, error) {
	result := imprint.FunctionResult{Payload: out.payload, Log: out.log, Cold: cold}
	switch out.kind {
	case outcomeAnswer:
		return result, nil
	case outcomeTimeout:
		return result, imprint.Errorf(imprint.CodeFunctionTimeout, "function %s: %s", found.function.Name, errorText(out.payload))
	case outcomeUnavailable:
		if out.err != nil {
			return result, fmt.Errorf("couldn't run function %s: %w", found.function.Name, out.err)
		}
		return result, imprint.Errorf(imprint.CodeUnavailable, "the server stops running functions")
	}
	return result, imprint.Errorf(imprint.CodeFunctionFailed, "function %s: %s", found.function.Name, errorText(out.payload))
}

// errorText is what an error object says to a person.
func errorText(object []byte) string {
	var said struct{ ErrorType, ErrorMessage string }
	err := json.Unmarshal(object, &said)
	if err != nil {
		return imprint.Excerpt(string(object))
	}
	if said.ErrorType == "" {
		return imprint.Excerpt(said.ErrorMessage)
	}
	return imprint.Excerpt(said.ErrorType + ": " + said.ErrorMessage)
}

// elsewhere runs a function that isn't a process here, when one of its places is
// free.
func (s *Service) elsewhere(ctx context.Context, call imprint.FunctionCall, found target,
	run func(context.Context, imprint.FunctionCall, imprint.Function) (imprint.FunctionResult, error)) (imprint.FunctionResult, error) {
	limit := s.opts.MaxConcurrency
	if found.limit >= 0 {
		limit = min(limit, found.limit)
	}
	key := functionKey{found.function.Tenant, found.function.Name}
	err := s.slots.take(ctx, key, limit, s.opts.MaxWaiting)
	if err != nil {
		return imprint.FunctionResult{}, err
	}
	defer s.slots.give(key)
	ctx, cancel := context.WithTimeout(ctx, found.function.Timeout)
	defer cancel()
	result, err := run(ctx, call, found.function)
	if err != nil && errors.Is(ctx.Err(), context.DeadlineExceeded) {
		err = imprint.Errorf(imprint.CodeFunctionTimeout, "function %s: Task timed out after %.2f seconds", found.function.Name, found.function.Timeout.Seconds())
		result.Payload = errorObject("Sandbox.Timedout", "%s", err.Error())
	}
	return result, err
}
