package rulesql

// FunctionNames lists what can be called, for the test of the page that describes it.
var FunctionNames = functionNames
