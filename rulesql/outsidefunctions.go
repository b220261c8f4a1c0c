package rulesql

import (
	"encoding/base64"
	"unicode/utf8"
)

// outsideFunctions are served by what the evaluation was given. What isn't given, and what fails,
// is Undefined and a Problem.
var outsideFunctions = []function{
	{name: "aws_lambda", least: 2, most: 2, external: true, call: awsLambda},
	{name: "get_thing_shadow", least: 2, most: 3, second: true, external: true, call: thingShadow},
	{name: "get_registry_data", least: 3, most: 3, second: true, external: true, call: registryData},
	{name: "get_secret", least: 3, most: 4, second: true, external: true, call: secret},
	{name: "get_dynamodb", least: 4, most: 6, second: true, external: true, call: absent("there is no DynamoDB here")},
	{name: "machinelearning_predict", least: 3, most: 3, external: true, call: absent("Amazon Machine Learning is closed, and nothing stands for it here")},
}

func absent(reason string) callFunction {
	return func(ev *Evaluation, n *callNode, _ []value) value {
		ev.problem(n.fn.name, nil, "%s", reason)
		return undefined()
	}
}

// outsideCall says whether one more call may be made.
func (ev *Evaluation) outsideCall(n *callNode, given bool) bool {
	if !given {
		ev.problem(n.fn.name, nil, "nothing serves this function here")
		return false
	}
	if ev.calls == MaxExternalCalls {
		ev.problem(n.fn.name, nil, "the statement makes more than %d calls for this message", MaxExternalCalls)
		return false
	}
	ev.calls++
	return true
}

// texts gives arguments that must be texts already.
func texts(args []value) ([]string, bool) {
	out := make([]string, len(args))
	for i, a := range args {
		if a.kind != kindString {
			return nil, false
		}
		out[i] = a.text
	}
	return out, true
}

// answer reads what the outside gave.
func (ev *Evaluation) answer(n *callNode, answer []byte, err error) value {
	if err != nil {
		ev.problem(n.fn.name, err, "the call failed")
		return undefined()
	}
	if len(answer) > MaxResultBytes || !ev.room(len(answer)) {
		ev.problem(n.fn.name, nil, "the answer is longer than %d bytes", MaxResultBytes)
		return undefined()
	}
	v, ok := parseJSON(string(answer), ev.version)
	if !ok {
		ev.problem(n.fn.name, nil, "the answer is no JSON")
		return undefined()
	}
	return v
}

func awsLambda(ev *Evaluation, n *callNode, args []value) value {
	if args[0].kind != kindString {
		return undefined()
	}
	payload, ok := ev.encode(nil, args[1])
	if !ok {
		ev.problem(n.fn.name, nil, "the argument for the function is Undefined or no JSON")
		return undefined()
	}
	if !ev.outsideCall(n, ev.outside.Lambda != nil) {
		return undefined()
	}
	answer, err := ev.outside.Lambda(ev.ctx, args[0].text, payload)
	return ev.answer(n, answer, err)
}

func thingShadow(ev *Evaluation, n *callNode, args []value) value {
	s, ok := texts(args)
	if !ok || !ev.outsideCall(n, ev.outside.ThingShadow != nil) {
		return undefined()
	}
	shadow := ""
	if len(s) == 3 {
		shadow = s[1]
	}
	answer, err := ev.outside.ThingShadow(ev.ctx, s[0], shadow, s[len(s)-1])
	return ev.answer(n, answer, err)
}

func registryData(ev *Evaluation, n *callNode, args []value) value {
	s, ok := texts(args)
	if !ok {
		return undefined()
	}
	if s[0] != "DescribeThing" && s[0] != "ListThingGroupsForThing" {
		ev.problem(n.fn.name, nil, "the operation is neither DescribeThing nor ListThingGroupsForThing")
		return undefined()
	}
	if !ev.outsideCall(n, ev.outside.RegistryData != nil) {
		return undefined()
	}
	answer, err := ev.outside.RegistryData(ev.ctx, s[0], s[1], s[2])
	return ev.answer(n, answer, err)
}

// secret is get_secret(id, type[, key], role). With a key, the secret must be a JSON object.
func secret(ev *Evaluation, n *callNode, args []value) value {
	s, ok := texts(args)
	if !ok {
		return undefined()
	}
	binary := s[1] == "SecretBinary"
	if !binary && s[1] != "SecretString" || binary && len(s) == 4 {
		ev.problem(n.fn.name, nil, "the type is neither SecretString nor SecretBinary without a key")
		return undefined()
	}
	if !ev.outsideCall(n, ev.outside.Secret != nil) {
		return undefined()
	}
	plain, err := ev.outside.Secret(ev.ctx, s[0], binary, s[len(s)-1])
	if err != nil {
		ev.problem(n.fn.name, err, "the call failed")
		return undefined()
	}
	if !ev.room(2 * len(plain)) {
		return undefined()
	}
	if binary {
		return stringValue(base64.StdEncoding.EncodeToString(plain))
	}
	v, isJSON := parseJSON(string(plain), ev.version)
	switch {
	case len(s) == 4 && v.kind == kindObject:
		return v.object().get(s[2])
	case len(s) == 4 || !utf8.Valid(plain):
		ev.problem(n.fn.name, nil, "the secret is no JSON object with a key to look for")
		return undefined()
	case isJSON && v.kind == kindObject:
		return v
	}
	return stringValue(string(plain))
}
