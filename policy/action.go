package policy

// Action is an action name in the form "service:Name". Any name may be given;
// the constants below are found through an index and are the fastest.
type Action string

// Actions of the AWS IoT data plane (developer guide, "AWS IoT Core policy actions").
const (
	Connect                      Action = "iot:Connect"
	Publish                      Action = "iot:Publish"
	RetainPublish                Action = "iot:RetainPublish"
	Subscribe                    Action = "iot:Subscribe"
	Receive                      Action = "iot:Receive"
	GetRetainedMessage           Action = "iot:GetRetainedMessage"
	ListRetainedMessages         Action = "iot:ListRetainedMessages"
	GetThingShadow               Action = "iot:GetThingShadow"
	UpdateThingShadow            Action = "iot:UpdateThingShadow"
	DeleteThingShadow            Action = "iot:DeleteThingShadow"
	ListNamedShadowsForThing     Action = "iot:ListNamedShadowsForThing"
	DescribeJobExecution         Action = "iot:DescribeJobExecution"
	GetPendingJobExecutions      Action = "iot:GetPendingJobExecutions"
	StartNextPendingJobExecution Action = "iot:StartNextPendingJobExecution"
	UpdateJobExecution           Action = "iot:UpdateJobExecution"
	AssumeRoleWithCertificate    Action = "iot:AssumeRoleWithCertificate"
	DeleteConnection             Action = "iot:DeleteConnection"
	GetConnection                Action = "iot:GetConnection"
)

// DataPlaneActions lists the actions named in this package, the hot ones first.
func DataPlaneActions() []Action {
	return []Action{
		Connect, Publish, RetainPublish, Subscribe, Receive,
		GetRetainedMessage, ListRetainedMessages,
		GetThingShadow, UpdateThingShadow, DeleteThingShadow, ListNamedShadowsForThing,
		DescribeJobExecution, GetPendingJobExecutions, StartNextPendingJobExecution, UpdateJobExecution,
		AssumeRoleWithCertificate, DeleteConnection, GetConnection,
	}
}

// hotActions is how many actions a Set keeps an index for.
const hotActions = 5

// hot gives the place of the action in a Set's index, or -1.
func (a Action) hot() int {
	switch a {
	case Connect:
		return 0
	case Publish:
		return 1
	case RetainPublish:
		return 2
	case Subscribe:
		return 3
	case Receive:
		return 4
	}
	return -1
}

// ResourceKind is the resource type that an action is checked against, for
// example "topicfilter" for iot:Subscribe. It is "*" for actions that know only
// the resource "*", and "" for actions that this package does not name.
func (a Action) ResourceKind() string {
	switch a {
	case Connect, DeleteConnection, GetConnection:
		return "client"
	case Publish, RetainPublish, Receive, GetRetainedMessage:
		return "topic"
	case Subscribe:
		return "topicfilter"
	case GetThingShadow, UpdateThingShadow, DeleteThingShadow,
		DescribeJobExecution, GetPendingJobExecutions, StartNextPendingJobExecution, UpdateJobExecution:
		return "thing"
	case AssumeRoleWithCertificate:
		return "rolealias"
	case ListRetainedMessages, ListNamedShadowsForThing:
		return "*"
	}
	return ""
}

// actionMatch compares an action pattern with an action, without regard to
// case. '*' is any run of characters, '?' one character. Both are ASCII in a
// pattern, so that bytes are compared. It backtracks to the last '*' only.
func actionMatch(pattern, action string) bool {
	p, a := 0, 0
	star, mark := -1, 0
	for a < len(action) {
		switch {
		case p < len(pattern) && pattern[p] == '*':
			star, mark = p, a
			p++
		case p < len(pattern) && (pattern[p] == '?' || lowerByte(pattern[p]) == lowerByte(action[a])):
			p++
			a++
		case star >= 0:
			mark++
			p, a = star+1, mark
		default:
			return false
		}
	}
	for p < len(pattern) && pattern[p] == '*' {
		p++
	}
	return p == len(pattern)
}

func lowerByte(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		return c + ('a' - 'A')
	}
	return c
}
