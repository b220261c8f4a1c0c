package test

import (
	"net/url"
	"path/filepath"
	"strings"
	"testing"
)

// TestLinksForOthersNameTheServersHost ensures that owners of destinations and readers
// of reports are told the server's name and not localhost, and that imprint's own
// command reads a report also where nobody knows that name.
func TestLinksForOthersNameTheServersHost(t *testing.T) {
	need(t, "bash", "aws")
	t.Parallel()
	s := startServer(t, "--host", "iot.example.test")
	dir := t.TempDir()
	owner, asked := destinationOwner(t)
	s.aws(t, dir, "iot create-topic-rule-destination --destination-configuration httpUrlConfiguration={confirmationUrl="+owner+"/in} --query topicRuleDestination.arn --output text")
	local, err := url.Parse(s.at().APIURL)
	if err != nil {
		t.Fatal(err)
	}
	want := "https://iot.example.test:" + local.Port() + "/"
	if got := <-asked; !strings.HasPrefix(got, want) {
		t.Errorf("enableUrl: got %s, want it to begin with %s", got, want)
	}
	s.bulkLines(t, "in.json", 3)
	writeFile(t, filepath.Join(dir, "template.json"), bulkThings)
	id := s.aws(t, dir, "iot start-thing-registration-task --template-body file://template.json --input-file-bucket lines --input-file-key in.json --role-arn "+role+" --query taskId --output text")
	s.awaitBulk(t, id, isOver)
	if got := s.aws(t, dir, "iot list-thing-registration-task-reports --task-id "+id+" --report-type RESULTS --query resourceLinks --output text"); !strings.HasPrefix(got, want) {
		t.Errorf("the report's link: got %s, want it to begin with %s", got, want)
	}
	tool := runTool(t, "", cleanEnv(), program, "bulk", "reports", id, "--data", s.dir)
	if tool.exit != 0 || strings.Count(tool.stdout, "\n") != 3 {
		t.Errorf("imprint bulk reports: exit code %d\n%s", tool.exit, tool.all())
	}
}
