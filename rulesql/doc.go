// Package rulesql is the SQL of AWS IoT topic rules: a statement is parsed once into a validated,
// immutable value and then evaluated against messages.
//
// # Use
//
//	statement, err := rulesql.Parse("SELECT temperature AS t, topic(2) AS device "+
//		"FROM 'plant/+/state' WHERE temperature > 50", rulesql.Version20160323)
//	if err != nil {
//		// *rulesql.SyntaxError: line, column, what is wrong and what to write instead
//	}
//	target, err := statement.ParseTopic("hot/${topic(2)}")
//	...
//	if statement.Matches(topic) {
//		ev := rulesql.NewEvaluation(statement, &rulesql.Message{Topic: topic, Payload: payload, Time: now}, outside)
//		result, err := ev.Select(ctx)
//		if err != nil {
//			// *rulesql.LimitError: the message is too much for the statement
//		}
//		if result.Matched {
//			to, err := ev.Expand(ctx, target)
//			...
//		}
//		problems, _ := ev.Problems() // for the rule's log
//	}
//
// # Promises
//
//   - A [Statement] or [Substitution] that exists is valid, never changes and may be shared by
//     any number of goroutines. An [Evaluation] serves one goroutine and one message.
//   - No input makes Parse or an evaluation panic. Both are deterministic but for what the outside
//     gives.
//   - Work is bounded whatever the statement and the payload say: the length and nesting of
//     texts, steps, characters made, calls to the outside (constants of this package). Regular expressions are matched in
//     time proportional to the text.
//   - The payload is decoded only if an expression looks into it, once an evaluation, and then
//     only the members that are looked into. SELECT * passes it on byte by byte.
//   - Members keep the order of the payload; what SELECT adds comes behind, in its order; a key
//     that is there twice keeps its first place and its last value.
//
// # Values
//
// The types are Int, Decimal, Boolean, String, Array, Object, Null and Undefined. What can't be
// computed is Undefined, which is not an error: an Undefined item is left out of the result, and
// a WHERE that isn't true runs no action. Why something is Undefined although the statement is
// right, because a service isn't there or failed, is a [Problem].
//
// Numbers are exact to 34 digits. The payload's 10.0 is the Int 10 in SQL version 2016-03-23, and
// stays a Decimal in 2015-10-08; Int divided by Int is an Int, so that 5 / 2 is 2.
//
// # What it does not do
//
// It has no clock, no randomness, no files and no network: [Message] and [Outside] bring what is
// to be known. It runs no actions and stores no rules. It doesn't decode Protobuf payloads, and
// knows no DynamoDB and no machine learning: these functions are parsed and Undefined.
//
// # Sources
//
// AWS IoT Core developer guide: "AWS IoT SQL reference" with its pages on SELECT, SET, FROM,
// WHERE, data types, operators, functions, literals, case statements, JSON extensions, substitution
// templates, nested object queries, binary payloads and SQL versions; "Reducing messaging costs
// with Basic Ingest". Where they are silent, docs/rules-sql.md says what was chosen.
package rulesql
