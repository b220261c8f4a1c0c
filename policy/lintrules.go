package policy

// Severity says how much a finding matters.
type Severity string

// The severities. An error is a policy that doesn't do what it says or gives away
// everything, a warning is one that most likely isn't meant so, a note is a thing to
// know.
const (
	SeverityError   Severity = "error"
	SeverityWarning Severity = "warning"
	SeverityNote    Severity = "note"
)

// LintCode names a rule of the linter.
type LintCode string

// The rules; LintRules tells what each means.
const (
	LintSyntax              LintCode = "Syntax"
	LintTooLong             LintCode = "TooLong"
	LintVariableUnbalanced  LintCode = "VariableUnbalanced"
	LintVariableSyntax      LintCode = "VariableSyntax"
	LintVariablesOff        LintCode = "VariablesOff"
	LintVariableUnknown     LintCode = "VariableUnknown"
	LintVariableValueless   LintCode = "VariableWithoutValue"
	LintConditionKeyUnknown LintCode = "ConditionKeyUnknown"
	LintActionUnknown       LintCode = "ActionUnknown"
	LintAllowsEverything    LintCode = "AllowsEverything"
	LintAllowsAllBut        LintCode = "AllowsAllBut"
	LintClientForEveryone   LintCode = "ClientForEveryone"
	LintConnectNotBound     LintCode = "ConnectNotBound"
	LintTopicForEveryone    LintCode = "TopicForEveryone"
	LintSubscribeOnTopic    LintCode = "SubscribeOnTopic"
	LintTopicOnTopicfilter  LintCode = "TopicOnTopicfilter"
	LintResourceKind        LintCode = "ResourceKind"
	LintResourceElsewhere   LintCode = "ResourceElsewhere"
	LintMQTTWildcard        LintCode = "MQTTWildcard"
	LintMQTTWildcardFilter  LintCode = "MQTTWildcardInFilter"
	LintReceiveMissing      LintCode = "ReceiveMissing"
	LintConnectMissing      LintCode = "ConnectMissing"
	LintDenyByVariable      LintCode = "DenyByVariable"
)

// LintRule is a row of the list of rules.
type LintRule struct {
	Code     LintCode `json:"code"`
	Severity Severity `json:"severity"`
	Meaning  string   `json:"meaning"`
	Fix      string   `json:"fix"` // what the finding's own fix says in general
}

// LintRules lists the rules.
func LintRules() []LintRule {
	return []LintRule{
		{LintSyntax, SeverityError, "the document isn't a policy; nothing else is looked at", "as the message says, at that line and column"},
		{LintTooLong, SeverityError, "more than 2048 characters, not counting whitespace", "use variables and wildcards, or several policies"},
		{LintVariableUnbalanced, SeverityError, "a `${` has no `}`", "close it; a literal `${` is written `${$}{`"},
		{LintVariableSyntax, SeverityError, "a variable's name without `${...}` around it: `{iot:ClientId}`, `$(iot:ClientId)`, `$iot:ClientId`", "write `${iot:ClientId}`"},
		{LintVariablesOff, SeverityError, "a variable in a document of version 2008-10-17, or without Version: it is plain text there", "write `\"Version\": \"2012-10-17\"`"},
		{LintVariableUnknown, SeverityError, "a variable that no connection has", "the nearest name of those that there are"},
		{LintVariableValueless, SeverityError, "a variable that has several values, or none that is substituted, such as `.List` and `iot:CertificateId`", "use it as a condition key, or another variable"},
		{LintConditionKeyUnknown, SeverityWarning, "a condition key that no connection has: the condition is met never, or always", "the nearest name"},
		{LintActionUnknown, SeverityWarning, "no device is ever asked for this action", "the nearest name, or leave it out; what operators do is allowed by the policies of users"},
		{LintAllowsEverything, SeverityError, "Allow of `iot:*` or `*` on `*`: each device may do everything, as everyone", "name the actions and the device's own resources"},
		{LintAllowsAllBut, SeverityWarning, "Allow with NotAction or NotResource allows whatever isn't listed, also what comes later", "list what is allowed, and use Deny for exceptions"},
		{LintClientForEveryone, SeverityError, "`iot:Connect` as any client id (`client/*`, `*` or `client/${iot:ClientId}`): each device may take another's place and end its connection. Policies of claim certificates, which devices share, are left alone", "`client/${iot:Connection.Thing.ThingName}`, or a condition on `iot:Connection.Thing.IsAttached`"},
		{LintConnectNotBound, SeverityWarning, "`iot:Connect` for fixed client ids: whichever device has the policy may use them", "a variable of the thing or the certificate in the resource"},
		{LintTopicForEveryone, SeverityWarning, "publish, subscribe or receive on every topic: devices read and fake each other's messages", "a variable of the thing or the certificate in the topic"},
		{LintSubscribeOnTopic, SeverityError, "`iot:Subscribe` on `topic/`: it is checked against `topicfilter/`", "`topicfilter/` with the same filter"},
		{LintTopicOnTopicfilter, SeverityError, "`iot:Publish`, `iot:RetainPublish` or `iot:Receive` on `topicfilter/`: they are checked against `topic/`", "`topic/` with the same name"},
		{LintResourceKind, SeverityError, "a resource of a type that none of the statement's actions is checked against, or of an unknown type", "the type that the action needs"},
		{LintResourceElsewhere, SeverityError, "another partition, service, region or account, or a placeholder in place of one", "`arn:aws:iot:REGION:ACCOUNT:`, or `*` for region and account"},
		{LintMQTTWildcard, SeverityError, "`+` or `#` in a topic, client or thing: they are ordinary characters there, and no topic has them", "`*`, which is a policy's wildcard"},
		{LintMQTTWildcardFilter, SeverityNote, "`+` or `#` in a topicfilter: it allows exactly this filter and none that it covers", "nothing, if the device subscribes with this very filter; else `*`"},
		{LintReceiveMissing, SeverityWarning, "`iot:Subscribe` without `iot:Receive` on the same topics: messages are dropped in silence", "`iot:Receive` on `topic/` with the same text"},
		{LintConnectMissing, SeverityNote, "no `iot:Connect`: a device needs another policy to come in", "a statement that allows it, here or in a policy beside this one"},
		{LintDenyByVariable, SeverityNote, "a Deny whose resource has a variable denies nothing to devices that have no value for it", "a Deny with NotResource, or no Allow in the first place"},
	}
}

// Wide tells the rules about policies that give devices more than their own.
func (c LintCode) Wide() bool {
	switch c {
	case LintAllowsEverything, LintAllowsAllBut, LintClientForEveryone, LintConnectNotBound, LintTopicForEveryone:
		return true
	}
	return false
}

func severityOf(code LintCode) Severity {
	for _, rule := range LintRules() {
		if rule.Code == code {
			return rule.Severity
		}
	}
	return SeverityError
}
