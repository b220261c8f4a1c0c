package rules

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"net"
	"net/url"
	"slices"
	"strings"

	"golang.org/x/time/rate"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/mqtt"
	"github.com/imprint-iot/imprint/rulesql"
)

// Offered are the actions that a server offers beyond lambda, republish and http.
type Offered struct {
	Sinks []string            // names that firehose actions may have
	Kafka map[string][]string // brokers, by the name of their sink
}

// Filter is what Check found in a statement.
type Filter struct {
	Topic string // of FROM
	Given bool   // there is a FROM
}

// rule is a topic rule that is ready to run. It never changes.
type rule struct {
	record    imprint.TopicRule
	statement *rulesql.Statement
	actions   []*action
	onError   *action
	// logs bounds the lines about failures of the rule.
	logs *rate.Limiter
}

// action is an action with its parsed texts, in the order of its fields.
type action struct {
	kind   ActionKind
	record imprint.RuleAction
	texts  map[string]*rulesql.Substitution
}

// Check says whether a rule can run, with the FROM of its statement. Errors:
// CodeSQLParse, CodeInvalidRequest.
func Check(r imprint.TopicRule, offered Offered) (Filter, error) {
	compiled, err := compile(r, offered)
	if err != nil {
		return Filter{}, err
	}
	actions := compiled.actions
	if compiled.onError != nil {
		actions = append(slices.Clone(actions), compiled.onError)
	}
	asks := compiled.statement.External()
	for _, a := range actions {
		err = a.checkConstants()
		if err != nil {
			return Filter{}, err
		}
		for _, text := range a.texts {
			asks = append(asks, text.External()...)
		}
	}
	for _, function := range asks {
		why := unserved[function]
		if why != "" {
			return Filter{}, imprint.Errorf(imprint.CodeInvalidRequest, "the rule calls %s(), which would be Undefined for each message: %s", function, why).
				WithHint("aws_lambda() of a function that knows the answer can stand for it.")
		}
	}
	topic, given := compiled.statement.Filter()
	return Filter{Topic: topic, Given: given}, nil
}

// unserved are the functions that nothing answers here, and why.
var unserved = map[string]string{
	"get_thing_shadow":        "there are no device shadows here",
	"get_secret":              "there is no secret store here",
	"decode":                  "it decodes 'proto' with a schema that AWS IoT Core reads from S3, and there are none here (decode(s, 'base64') is served)",
	"get_dynamodb":            "there is no DynamoDB here",
	"machinelearning_predict": "nothing stands for Amazon Machine Learning here",
}

// compile parses a rule.
func compile(r imprint.TopicRule, offered Offered) (*rule, error) {
	version, err := rulesql.ParseVersion(r.SQLVersion)
	if err != nil {
		return nil, imprint.Errorf(imprint.CodeInvalidRequest, "%w", err)
	}
	statement, err := rulesql.Parse(r.SQL, version)
	if err != nil {
		return nil, sqlError("", err)
	}
	if len(r.Actions) > imprint.MaxRuleActions {
		return nil, imprint.Errorf(imprint.CodeInvalidRequest, "the rule has %d actions, at most %d are allowed", len(r.Actions), imprint.MaxRuleActions)
	}
	actions, err := json.Marshal([]any{r.Actions, r.ErrorAction})
	if err != nil {
		return nil, imprint.Errorf(imprint.CodeInvalidRequest, "the actions can't be encoded: %w", err)
	}
	if size := len(r.SQL) + len(actions); size > imprint.MaxRuleBytes {
		return nil, imprint.Errorf(imprint.CodeInvalidRequest, "the rule has %d bytes, at most %d are allowed", size, imprint.MaxRuleBytes)
	}
	compiled := &rule{record: r, statement: statement, logs: rate.NewLimiter(1, 10)}
	for _, record := range r.Actions {
		a, err := compiled.compileAction(record, offered, false)
		if err != nil {
			return nil, err
		}
		compiled.actions = append(compiled.actions, a)
	}
	if r.ErrorAction != nil {
		compiled.onError, err = compiled.compileAction(*r.ErrorAction, offered, true)
	}
	return compiled, err
}

func sqlError(where string, err error) error {
	var syntax *rulesql.SyntaxError
	if !errors.As(err, &syntax) {
		return imprint.Errorf(imprint.CodeSQLParse, "%s%w", where, err)
	}
	e := imprint.Errorf(imprint.CodeSQLParse, "%sline %d, column %d: %s", where, syntax.Line, syntax.Column, syntax.Msg)
	if syntax.Hint != "" {
		return e.WithHint("%s", syntax.Hint)
	}
	return e
}

// compileAction parses an action's texts and checks what can be checked before
// there is a message.
func (r *rule) compileAction(record imprint.RuleAction, offered Offered, onError bool) (*action, error) {
	a := &action{record: record, texts: map[string]*rulesql.Substitution{}}
	var fields []imprint.RuleField
	var err error
	switch {
	case record.Lambda != nil:
		a.kind = ActionLambda
		fields = []imprint.RuleField{{Key: "functionArn", Value: record.Lambda.FunctionARN}}
		if !strings.Contains(record.Lambda.FunctionARN, "${") {
			_, _, _, err = imprint.ParseFunctionARN(record.Lambda.FunctionARN)
		}
	case record.Republish != nil:
		a.kind = ActionRepublish
		fields, err = republishFields(record.Republish)
	case record.HTTP != nil:
		a.kind = ActionHTTP
		fields, err = httpFields(record.HTTP)
	case record.Firehose != nil:
		a.kind = ActionFirehose
		if !slices.Contains(offered.Sinks, record.Firehose.Stream) {
			err = imprint.Errorf(imprint.CodeInvalidRequest, "the firehose action names %q, and this server has no sink of that name", imprint.Excerpt(record.Firehose.Stream)).
				WithHint("Start the server with --rule-sink %s=URL: docs/rules.md lists the kinds of sinks.", imprint.Excerpt(record.Firehose.Stream))
		}
	case record.Kafka != nil:
		a.kind = ActionKafka
		fields, err = kafkaFields(record.Kafka, offered)
	default:
		err = imprint.Errorf(imprint.CodeInvalidRequest, "an action has no kind that this server offers: lambda, republish, http, firehose and kafka")
	}
	if err != nil {
		return nil, err
	}
	for _, field := range fields {
		err = r.parseText(a, field, onError)
		if err != nil {
			return nil, err
		}
	}
	return a, nil
}

// checkConstants refuses texts, as far as they have no substitutions, that no message
// could be handed on with. It isn't asked of rules that are stored: their other actions run.
func (a *action) checkConstants() error {
	if a.kind != ActionRepublish {
		return nil
	}
	topic, constant := a.texts[fieldTopic].Constant()
	err := imprint.CheckRepublished(a.texts[fieldTopic].Beginning(), constant)
	if err != nil {
		return &imprint.Error{Code: imprint.CodeInvalidRequest, Op: "in republish.topic", Err: err, Hint: imprint.HintOf(err)}
	}
	if !constant {
		return nil
	}
	err = mqtt.CheckTopicName(topic)
	if err != nil {
		return imprint.Errorf(imprint.CodeInvalidRequest, "a republish action's topic %q isn't one that can be published to: %w", imprint.Excerpt(topic), err)
	}
	return nil
}

func (r *rule) parseText(a *action, field imprint.RuleField, onError bool) error {
	parse := r.statement.ParseSubstitution
	if field.Key == fieldTopic && a.kind == ActionRepublish {
		parse = r.statement.ParseTopic
	}
	text, err := parse(field.Value)
	if err != nil {
		return sqlError("in "+string(a.kind)+"."+field.Key+": ", err)
	}
	if external := text.External(); onError && len(external) > 0 {
		return imprint.Errorf(imprint.CodeInvalidRequest, "the error action calls %s, and error actions can't call functions that look outside", external[0])
	}
	a.texts[field.Key] = text
	return nil
}

// The keys of parsed texts.
const (
	fieldTopic     = "topic"
	fieldURL       = "url"
	fieldKey       = "key"
	fieldPartition = "partition"
	fieldHeader    = "header." // with the header's number
)

func republishFields(a *imprint.RepublishRuleAction) ([]imprint.RuleField, error) {
	if a.QoS != 0 && a.QoS != 1 {
		return nil, imprint.Errorf(imprint.CodeInvalidRequest, "the qos of a republish action is %d, and must be 0 or 1", a.QoS)
	}
	if a.Topic == "" {
		return nil, imprint.Errorf(imprint.CodeInvalidRequest, "a republish action has no topic")
	}
	fields := []imprint.RuleField{{Key: fieldTopic, Value: a.Topic}}
	h := a.Headers
	if h == nil {
		return fields, nil
	}
	if len(h.UserProperties) > 100 {
		return nil, imprint.Errorf(imprint.CodeInvalidRequest, "a republish action has %d user properties, at most 100 are allowed", len(h.UserProperties))
	}
	format := h.PayloadFormat
	if format != "" && !strings.Contains(format, "${") && format != formatBytes && format != formatUTF8 {
		return nil, imprint.Errorf(imprint.CodeInvalidRequest, "payloadFormatIndicator is %q, and must be %s or %s", imprint.Excerpt(format), formatBytes, formatUTF8)
	}
	if data := h.CorrelationData; !strings.Contains(data, "${") {
		_, err := base64.StdEncoding.DecodeString(data)
		if err != nil {
			return nil, imprint.Errorf(imprint.CodeInvalidRequest, "correlationData isn't base64: %w", err)
		}
	}
	for _, field := range []imprint.RuleField{
		{Key: fieldFormat, Value: h.PayloadFormat}, {Key: fieldContentType, Value: h.ContentType}, {Key: fieldResponseTopic, Value: h.ResponseTopic},
		{Key: fieldCorrelation, Value: h.CorrelationData}, {Key: fieldExpiry, Value: h.MessageExpiry},
	} {
		if field.Value != "" {
			fields = append(fields, field)
		}
	}
	return append(fields, numbered(h.UserProperties)...), nil
}

// numbered gives the texts of names and values.
func numbered(list []imprint.RuleField) []imprint.RuleField {
	var fields []imprint.RuleField
	for n, f := range list {
		fields = append(fields, imprint.RuleField{Key: headerName(n), Value: f.Key}, imprint.RuleField{Key: headerValue(n), Value: f.Value})
	}
	return fields
}

func httpFields(a *imprint.HTTPRuleAction) ([]imprint.RuleField, error) {
	if len(a.Headers) > 100 {
		return nil, imprint.Errorf(imprint.CodeInvalidRequest, "an http action has %d headers, at most 100 are allowed", len(a.Headers))
	}
	confirm := a.ConfirmationURL
	if confirm == "" {
		confirm = a.URL
		if strings.Contains(confirm, "${") {
			return nil, imprint.Errorf(imprint.CodeInvalidRequest, "the url of an http action has a substitution, so that confirmationUrl must be given")
		}
	}
	err := CheckURL(confirm)
	if err != nil {
		return nil, err
	}
	if !strings.Contains(a.URL, "${") {
		err = CheckURL(a.URL)
		if err != nil {
			return nil, err
		}
	}
	for _, h := range a.Headers {
		if !strings.Contains(h.Key, "${") && !validHeader(h.Key) {
			return nil, imprint.Errorf(imprint.CodeInvalidRequest, "%q can't be a header of an http action", imprint.Excerpt(h.Key))
		}
	}
	return append([]imprint.RuleField{{Key: fieldURL, Value: a.URL}}, numbered(a.Headers)...), nil
}

// CheckURL says whether http actions may have a URL: https, or http on a
// loopback address. Errors: CodeInvalidRequest.
func CheckURL(text string) error {
	u, err := url.Parse(text)
	var fault *url.Error
	switch {
	case errors.As(err, &fault):
		return imprint.Errorf(imprint.CodeInvalidRequest, "%q isn't an https URL: %s", imprint.Excerpt(text), imprint.Excerpt(fault.Err.Error()))
	case u.Host == "" || u.User != nil || u.Fragment != "" || len(text) > 2000:
		return imprint.Errorf(imprint.CodeInvalidRequest, "%q isn't an https URL", imprint.Excerpt(text))
	case u.Scheme == "https":
		return nil
	}
	ip := net.ParseIP(u.Hostname())
	if u.Scheme == "http" && ip != nil && ip.IsLoopback() {
		return nil
	}
	return imprint.Errorf(imprint.CodeInvalidRequest, "%q isn't an https URL (http is for loopback addresses alone)", imprint.Excerpt(text))
}
