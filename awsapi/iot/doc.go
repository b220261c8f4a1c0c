// Package iot is the AWS IoT control plane (API version 2015-05-28): its
// operations as typed values, made from the API model in model/iot-api.json,
// and the functions that answer them.
//
//	routes := []awsapi.Route{
//		awsapi.Handle(iot.DescribeThing, func(ctx context.Context, caller awsapi.Caller, in *iot.DescribeThingInput) (*iot.DescribeThingOutput, error) {
//			...
//		}),
//	}
//	mux, err := awsapi.NewMux(config, iot.Operations(), routes)
//
// # Types
//
// A member that the model requires is a plain value; an optional member of a
// request is a pointer, nil when absent (new(x) makes one). In structures that
// only occur in responses, strings and times are plain, and left out when they
// are zero; numbers and booleans are pointers, because 0 and false are sent.
// Lists and maps are left out when nil and sent when empty. When a function
// gets an input, every constraint of the model holds for it.
//
// # Generated files
//
// The files *_gen.go come from "go generate" and hold no logic.
package iot

import "github.com/imprint-iot/imprint/awsapi/restjson"

//go:generate go run ./internal/gen -model model/iot-api.json -out .
//go:generate go run ../../internal/compatdoc -out ../../docs/compatibility.md

// codec knows the constraints of the model. The control plane reports broken
// ones as InvalidRequestException.
var codec = restjson.New(constraints, "InvalidRequestException")
