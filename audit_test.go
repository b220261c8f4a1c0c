package imprint_test

import (
	"testing"
	"time"

	"github.com/imprint-iot/imprint"
)

// Scheduled audits begin on the days that AWS IoT Device Defender documents.
func TestScheduledAuditsKnowTheirNextTime(t *testing.T) {
	t.Parallel()
	at := func(text string) time.Time {
		parsed, err := time.Parse("2006-01-02 15:04", text)
		if err != nil {
			t.Fatal(err)
		}
		return parsed
	}
	for _, row := range []struct {
		frequency            imprint.AuditFrequency
		dayOfMonth, day      string
		before, after, wants string
	}{
		{imprint.AuditDaily, "", "", "", "2026-03-04 01:29", "2026-03-04 01:30"},
		{imprint.AuditDaily, "", "", "", "2026-03-04 01:30", "2026-03-05 01:30"},
		{imprint.AuditDaily, "", "", "", "2026-12-31 02:00", "2027-01-01 01:30"},
		{imprint.AuditWeekly, "", "WED", "", "2026-03-04 01:00", "2026-03-04 01:30"},
		{imprint.AuditWeekly, "", "WED", "", "2026-03-04 02:00", "2026-03-11 01:30"},
		{imprint.AuditWeekly, "", "SUN", "", "2026-03-04 02:00", "2026-03-08 01:30"},
		{imprint.AuditBiweekly, "", "SUN", "", "2026-03-04 02:00", "2026-03-08 01:30"},
		{imprint.AuditBiweekly, "", "SUN", "2026-03-08 01:30", "2026-03-08 01:30", "2026-03-22 01:30"},
		{imprint.AuditBiweekly, "", "SUN", "2026-03-08 01:30", "2026-03-25 00:00", "2026-04-05 01:30"},
		{imprint.AuditMonthly, "4", "", "", "2026-03-04 01:29", "2026-03-04 01:30"},
		{imprint.AuditMonthly, "4", "", "", "2026-03-04 01:30", "2026-04-04 01:30"},
		{imprint.AuditMonthly, "31", "", "", "2026-04-04 01:30", "2026-04-30 01:30"},
		{imprint.AuditMonthly, "29", "", "", "2026-02-01 00:00", "2026-02-28 01:30"},
		{imprint.AuditMonthly, "30", "", "", "2028-02-01 00:00", "2028-02-29 01:30"},
		{imprint.AuditMonthly, imprint.LastDayOfMonth, "", "", "2026-12-31 01:30", "2027-01-31 01:30"},
	} {
		a := imprint.ScheduledAudit{Frequency: row.frequency, DayOfMonth: row.dayOfMonth, DayOfWeek: row.day, Minute: 90}
		if row.before != "" {
			a.NextAt = at(row.before)
		}
		if err := a.Check(); err != nil {
			t.Errorf("%+v: %v", row, err)
		}
		if got := a.Next(at(row.after)); !got.Equal(at(row.wants)) {
			t.Errorf("%+v: got %s", row, got)
		}
	}
	for _, a := range []imprint.ScheduledAudit{
		{}, {Frequency: imprint.AuditWeekly}, {Frequency: imprint.AuditBiweekly, DayOfWeek: "DAY"}, {Frequency: imprint.AuditMonthly},
		{Frequency: imprint.AuditMonthly, DayOfMonth: "0"}, {Frequency: imprint.AuditMonthly, DayOfMonth: "32"},
	} {
		if err := a.Check(); imprint.CodeOf(err) != imprint.CodeInvalidRequest || imprint.HintOf(err) == "" && a.Frequency != "" {
			t.Errorf("%+v: got %v, want InvalidRequest", a, err)
		}
	}
}
